#!/usr/bin/env python3
"""A server on a GPU gives the first tokens of a float32 server on the CPU: the same greedy first token for at least
99 % of a file's questions, each with its paraphrases fused by ATTENTION and by LOGIT_MEAN.

    python3 tests/golden/gpu_first_tokens_test.py --bin build/release/bin
    ... gpu_first_tokens_test.py --bin BIN --devices cpu     without a GPU: its bfloat16 against float32, on the CPU

Questions that float32 itself leaves open are not counted: the two best tokens there are nearer to each other than
bfloat16 can tell (0.125, two roundings of a logit between 16 and 32). Shares with and without them are printed, and every
question whose token differs; --json prints them as one object instead. Needs nothing but Python's own library, and asks
with `chorus ask`. Exit code 77: skipped, there is no GPU or no model.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from server_process import ServerProcess  # noqa: E402

SKIPPED = 77
LEAST_SHARE = 0.99
OPEN_MARGIN = 0.125
METHODS = ("attention", "logit_mean")
PREFIX = r"Q: What is the capital of Norway?\nA: Oslo\n\nQ: Name the currency of Switzerland.\nA: Franc\n\n"
ASKED_AT_A_TIME = 8


def ask(binaries, target, row):
    """{question and method: (token id, how much more log-probability it has than the next)}."""
    command = [binaries / "chorus", "ask", f"--server={target}", f"Q: {row['question']}",
               *(f"--paraphrase=Q: {text}" for text in row["paraphrases"]), f"--prefix={PREFIX}", r"--suffix=\nA:",
               f"--method={','.join(METHODS)}", "--max_new_tokens=1", "--ignore_eos", "--top_logprobs=2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{row['id']}: {done.stderr.strip()}")
    tokens = {}
    for line in done.stdout.splitlines():
        answer = json.loads(line)
        best, second = answer["tokens"][0]["top_logprobs"][:2]
        tokens[f"{row['id']}/{answer['method']}"] = (answer["token_ids"][0], best["logprob"] - second["logprob"])
    return tokens


def first_tokens(arguments, questions, *flags):
    tokens = {}
    with (ServerProcess(arguments.bin, arguments.model, *flags) as server,
          concurrent.futures.ThreadPoolExecutor(ASKED_AT_A_TIME) as pool):
        target = f"127.0.0.1:{server.ports['grpc']}"
        for found in pool.map(lambda row: ask(arguments.bin, target, row), questions):
            tokens.update(found)
    return tokens


def has_gpu():
    return any(pathlib.Path("/dev").glob("nvidia[0-9]*"))


def compare(expected, actual):
    """What is printed with --json."""
    different = [{"question": name, "token": actual[name][0], "float32_token": token, "float32_margin": margin}
                 for name, (token, margin) in expected.items() if actual[name][0] != token]
    decided = [name for name, (_, margin) in expected.items() if margin >= OPEN_MARGIN]
    wrong = sum(row["float32_margin"] >= OPEN_MARGIN for row in different)
    document = {"compared": len(expected), "share_same": 1 - len(different) / len(expected), "decided": len(decided),
                "share_same_of_decided": 1 - wrong / max(1, len(decided)), "least_share_of_decided": LEAST_SHARE,
                "different": different}
    document["ok"] = bool(decided) and document["share_same_of_decided"] >= LEAST_SHARE
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="folder of chorus-server and chorus")
    parser.add_argument("--library_path", help="LD_LIBRARY_PATH of both, where it is not Python's")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models" / "smollm2-135m-instruct")
    parser.add_argument("--questions", type=pathlib.Path, default=ROOT / "tests" / "data" / "qa.jsonl",
                        help="JSON lines with id, question, paraphrases")
    parser.add_argument("--count", type=int, default=1000, help="so many questions, at most")
    parser.add_argument("--devices", default="cuda:0", help="of the server that is tested")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.devices != "cpu" and not has_gpu():
        print("skipped: no GPU here (no /dev/nvidia0)")
        return SKIPPED
    if not (arguments.model / "model.safetensors").is_file():
        print(f"skipped: no model at {arguments.model}")
        return SKIPPED
    if arguments.library_path:
        os.environ["LD_LIBRARY_PATH"] = arguments.library_path
    lines = arguments.questions.read_text(encoding="utf-8").splitlines()[:arguments.count]
    questions = [json.loads(line) for line in lines]
    document = compare(first_tokens(arguments, questions, "--devices=cpu", "--dtype=float32"),
                       first_tokens(arguments, questions, f"--devices={arguments.devices}", "--dtype=bfloat16"))
    if arguments.json:
        print(json.dumps(document, indent=1))
    else:
        for row in document["different"]:
            print(f"{row['question']}: token {row['token']} on {arguments.devices}, {row['float32_token']} in float32, "
                  f"where it leads by {row['float32_margin']:.3f}")
        print(f"{document['compared']} first tokens: {document['share_same']:.2%} the same; of the {document['decided']} "
              f"that float32 decides {document['share_same_of_decided']:.2%}, at least {LEAST_SHARE:.0%} must be")
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
