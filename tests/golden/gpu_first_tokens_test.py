#!/usr/bin/env python3
"""A server on a GPU gives the first tokens of a float32 server on the CPU: the same greedy first token for at least
99 % of a file's questions, each with its paraphrases fused by ATTENTION and by LOGIT_MEAN.

    PYTHONPATH=client/python .venv/bin/python tests/golden/gpu_first_tokens_test.py --bin build/release/bin
    ... gpu_first_tokens_test.py --bin BIN --devices cpu     without a GPU: its bfloat16 against float32, on the CPU

Questions that float32 itself leaves open are not counted: the two best tokens there are nearer to each other than
bfloat16 can tell (0.125, two roundings of a logit between 16 and 32). Shares with and without them are printed, and every
question whose token differs. Exit code 77: skipped, there is no GPU or no model.
"""
import argparse
import json
import pathlib
import sys

from chorus_client import Client, make_request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from server_process import ServerProcess  # noqa: E402

SKIPPED = 77
LEAST_SHARE = 0.99
OPEN_MARGIN = 0.125
METHODS = ("attention", "logit_mean")
PREFIX = "Q: What is the capital of Norway?\nA: Oslo\n\nQ: Name the currency of Switzerland.\nA: Franc\n\n"


def first_tokens(arguments, questions, *flags):
    """{question and method: (token id, how much more log-probability it has than the next)}."""
    requests = [(f"{row['id']}/{method}", make_request(f"Q: {row['question']}",
                                                       [f"Q: {text}" for text in row["paraphrases"]], prefix=PREFIX,
                                                       suffix="\nA:", method=method, max_new_tokens=1,
                                                       ignore_eos=True, top_logprobs=2))
                for row in questions for method in METHODS]
    with ServerProcess(arguments.bin, arguments.model, *flags) as server:
        with Client(f"127.0.0.1:{server.ports['grpc']}") as client:
            answers = [(name, client.generate(request, deadline=120)) for name, request in requests]
    return {name: (answer.token_ids[0], margin_of(answer)) for name, answer in answers}


def margin_of(answer):
    best, second = answer.chunks[0].top_logprobs[0].entries[:2]
    return best.logprob - second.logprob


def has_gpu():
    return any(pathlib.Path("/dev").glob("nvidia[0-9]*"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="folder of chorus-server")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models" / "smollm2-135m-instruct")
    parser.add_argument("--questions", type=pathlib.Path, default=ROOT / "tests" / "data" / "qa.jsonl",
                        help="JSON lines with id, question, paraphrases")
    parser.add_argument("--count", type=int, default=1000, help="so many questions, at most")
    parser.add_argument("--devices", default="cuda:0", help="of the server that is tested")
    arguments = parser.parse_args()
    if arguments.devices != "cpu" and not has_gpu():
        print("skipped: no GPU here (no /dev/nvidia0)")
        return SKIPPED
    if not (arguments.model / "model.safetensors").is_file():
        print(f"skipped: no model at {arguments.model}")
        return SKIPPED
    lines = arguments.questions.read_text(encoding="utf-8").splitlines()[:arguments.count]
    questions = [json.loads(line) for line in lines]
    expected = first_tokens(arguments, questions, "--devices=cpu", "--dtype=float32")
    actual = first_tokens(arguments, questions, f"--devices={arguments.devices}", "--dtype=bfloat16")
    different = [name for name in expected if expected[name][0] != actual[name][0]]
    for name in different:
        (wanted, margin), (got, _) = expected[name], actual[name]
        print(f"{name}: token {got} on {arguments.devices}, {wanted} in float32, where it leads by {margin:.3f}")
    decided = [name for name, (_, margin) in expected.items() if margin >= OPEN_MARGIN]
    wrong = sum(name in different for name in decided)
    share = 1 - wrong / len(decided)
    print(f"{len(expected)} first tokens: {1 - len(different) / len(expected):.2%} the same; of the {len(decided)} that "
          f"float32 decides {share:.2%}, at least {LEAST_SHARE:.0%} must be")
    return 0 if share >= LEAST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
