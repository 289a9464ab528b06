#!/usr/bin/env python3
"""Compares lm_eval's model `chorus` with lm_eval's own Hugging Face model, `hf`, in float32.

    python compare_lm_eval.py [--items 100] [--model DIR] [--bin build/release/bin] [--output FILE]

Both evaluate the tasks of tests/data/lm_eval: the four choices of each question by log-likelihood,
running text by rolling log-likelihood, free answers. Besides they score what is awkward: empty
contexts, spaces at the seam, spellings of special tokens, contexts and texts beyond the window of 64
tokens. chorus-server runs with --dtype=float32, chorus asks prompt by prompt (method=per_prompt).

Prints JSON: for each kind the number of scores, the largest difference, the mean one, how many greedy
flags are equal (and how many are true), or how many texts are equal; and seconds. Exit code 1 if a
difference is above 1e-3 (or 1e-5 a token, where a text has more than 100), or a flag or an answer
differs. Long texts need the latter since `hf` takes log_softmax in float32: over a vocabulary of 49152
that is some 8e-6 too much a token. In float64, of the same logits, it is nearer to chorus's.

Needs lm_eval[hf], and what client/python/requirements.txt lists; the stubs of chorus_client made.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # nothing is downloaded
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client" / "python"))

import lm_eval  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from chorus_lm_eval.model import ChorusLM  # noqa: E402

LIMIT, LIMIT_PER_TOKEN = 1e-3, 1e-5
WINDOW = 64  # tokens, for what is awkward about length
TASKS = {"loglikelihood": "qa_choice_wording-0", "loglikelihood_rolling": "qa_perplexity",
         "generate_until": "qa_answer_wording-0"}
# Texts that do not repeat themselves: lm_eval's `hf` takes windows of the same tokens for one request, and
# scores only one of them right.
SENTENCES = [f"{record['question']} {record['answers'][0]}." for record in
             map(json.loads, (ROOT / "tests/data/qa.jsonl").read_text().splitlines()[:40])]
LONG = " ".join(SENTENCES[:12])
PAIRS = [("", "Paris is a city."), ("", " Paris"), ("", "<|im_start|>user"), ("The capital of France is ", "Paris"),
         ("The capital of France is   ", "Paris"), ("The capital of France is", "Paris"), ("One\n", "\nTwo"),
         ("One\n\n", "Two"), ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello<|im_end|>"),
         ("Größe: 5 µm, 東", "京は大きい 🦊"), ("1234", "5678"), (LONG, "The capital of Spain is Madrid."),
         (LONG + " ", "Madrid"), ("Hi", " " + LONG[:200].strip())]
TEXTS = ["One sentence.", LONG, " ".join(SENTENCES), " leading and trailing ", "<|im_end|>", "日本語の文章です。"]


def start_server(binaries, model, folder):
    port_file = pathlib.Path(folder) / "ports.json"
    process = subprocess.Popen([binaries / "chorus-server", f"--model={model}", "--dtype=float32",
                                "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0",
                                f"--port_file={port_file}"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not port_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise SystemExit("chorus-server did not start")
        time.sleep(0.1)
    return process, f"127.0.0.1:{json.loads(port_file.read_text())['grpc']}"


def evaluate(lm, num_items):
    """{kind: [an answer, in the order of documents and choices]}, {kind: seconds}"""
    answers, seconds = {}, {}
    for kind, task in TASKS.items():
        manager = TaskManager(include_path=str(ROOT / "tests/data/lm_eval"), include_defaults=False)
        begin = time.monotonic()
        results = lm_eval.simple_evaluate(model=lm, tasks=[task], limit=num_items, task_manager=manager,
                                          bootstrap_iters=0)
        seconds[kind] = time.monotonic() - begin
        samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
        answers[kind] = [response[0] for sample in samples for response in sample["resps"]]
    return answers, seconds


def instances(kind, arguments):
    return [Instance(kind, {}, args, 0, ("awkward", number, 1)) for number, args in enumerate(arguments)]


def score_awkward(lm):
    return {"awkward loglikelihood": lm.loglikelihood(instances("loglikelihood", PAIRS)),
            "awkward loglikelihood_rolling": lm.loglikelihood_rolling(
                instances("loglikelihood_rolling", [(text,) for text in TEXTS]))}


def compare(ours, theirs, num_tokens):
    """How far two lists of answers of one kind are apart, and whether that is near enough for scores of
    `num_tokens` tokens."""
    if isinstance(theirs[0], str):
        equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
        return {"texts": len(theirs), "equal": equal}, equal == len(theirs)
    if not isinstance(theirs[0], tuple):
        ours, theirs = [(value, None) for value in ours], [(value, None) for value in theirs]
    differences = [abs(a - b) for (a, _), (b, _) in zip(ours, theirs, strict=True)]
    flags = [(a, b) for (_, a), (_, b) in zip(ours, theirs) if b is not None]
    found = {"scores": len(theirs), "largest_difference": max(differences),
             "mean_difference": sum(differences) / len(differences)}
    if flags:
        found |= {"greedy_equal": sum(a == b for a, b in flags), "greedy_true": sum(b for _, b in flags)}
    limits = [max(LIMIT, LIMIT_PER_TOKEN * count) for count in num_tokens]
    near = [difference <= limit for difference, limit in zip(differences, limits, strict=True)]
    return found, all(near) and all(a == b for a, b in flags)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/smollm2-135m-instruct")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    parser.add_argument("--output", type=pathlib.Path, help="write the JSON there too")
    arguments = parser.parse_args()
    os.chdir(ROOT)  # the tasks name their data from here

    def hugging_face(**options):
        return HFLM(str(arguments.model), dtype="float32", device="cpu", batch_size=8, **options)

    theirs, their_seconds = evaluate(hugging_face(), arguments.items)
    narrow = hugging_face(max_length=WINDOW)
    theirs |= score_awkward(narrow)
    awkward_lengths = [len(narrow.tok_encode(text)) for text in TEXTS]
    with tempfile.TemporaryDirectory() as folder:
        server, target = start_server(arguments.bin, arguments.model, folder)
        try:
            ours, our_seconds = evaluate(ChorusLM(target=target, method="per_prompt"), arguments.items)
            ours |= score_awkward(ChorusLM(target=target, method="per_prompt", max_length=WINDOW))
        finally:
            server.terminate()
            server.wait()
    # Only the long texts have more than some tokens a score.
    lengths = {kind: [1] * len(answers) for kind, answers in theirs.items()}
    lengths["awkward loglikelihood_rolling"] = awkward_lengths
    compared = {kind: compare(ours[kind], theirs[kind], lengths[kind]) for kind in theirs}
    document = {"model": arguments.model.name, "items": arguments.items, "lm_eval": lm_eval.__version__,
                "limit": LIMIT, "compared": {kind: found for kind, (found, _) in compared.items()},
                "seconds": {"chorus": our_seconds, "hf": their_seconds}}
    text = json.dumps(document, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    return 0 if all(is_near for _, is_near in compared.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
