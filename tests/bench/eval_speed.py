#!/usr/bin/env python3
"""A data set by several methods: chorus-eval against Transformers, in one run on the same machine.

    .venv/bin/python tests/bench/eval_speed.py --reference-python PYTHON [--output RESULT.json]
    .venv/bin/python tests/bench/eval_speed.py --no-reference --methods ALL --seconds SECONDS.json

First what a user does: 200 questions by five methods as one command, on a fresh server. Then each
method on a fresh server, so that it finds no other method's segments in the cache: a block of
questions through chorus-eval, the same block through transformers_reference.py (a padded batch of
the prompts, KV cache, tokens equally stopped), and the other way round, so that a drift of the
machine hits both. Of float32 and bfloat16, Transformers runs in what is faster for it on the first
questions. chorus-eval's time is all of the command but its interpreter's start; Transformers' is
that of its answers alone. --no-reference measures each method over all questions instead; --seconds
writes what `chorus-eval experiment --seconds` reads. Needs chorus-eval (scripts/setup.sh installs
it in .venv); the reference needs an interpreter with torch and transformers.
"""

import argparse
import contextlib
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import bench_common as common

EXAMPLES_FILE = common.ROOT / "tests" / "data" / "qa_examples.jsonl"
REFERENCE = pathlib.Path(__file__).resolve().parent / "transformers_reference.py"
FIVE_METHODS = ("attention", "logit_mean", "prob_mean", "vote", "per_prompt")
MAX_NEW_TOKENS = 12  # ACCURACY_TOKENS of transformers_reference.py
PROBE_QUESTIONS = 3
# The labels of tests/data/experiment.json.
LABELS = {"attention_sequential": "attention, sequential"}


class Reference:
    """transformers_reference.py --serve; use it in a with statement."""

    def __init__(self, arguments, dtype):
        self.dtype = dtype
        self._command = [str(arguments.reference_python), str(REFERENCE),
                         f"--model={arguments.model}", f"--qa={arguments.qa}",
                         f"--threads={arguments.threads}", f"--dtype={dtype}", "--serve"]

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        self._read()
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(common.STOP_SECONDS)

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise common.BenchError("the reference failed; --reference-python names an interpreter "
                                    "with torch and transformers, --no-reference leaves it out")
        return json.loads(line)

    def answer(self, method, begin, end):
        wanted = {"method": method, "begin": begin, "end": end}
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return self._read()


def method_options(methods):
    """Of chorus-eval, for names of common.METHODS."""
    names = dict.fromkeys(common.METHODS[name][0].lower() for name in methods)
    positions = dict.fromkeys(common.METHODS[name][1].lower() for name in methods
                              if common.METHODS[name][1])
    return [f"--methods={','.join(names)}",
            *([f"--positions={','.join(positions)}"] if positions else [])]


def run_eval(arguments, target, methods, begin, end):
    """{"seconds", "records"} of `chorus-eval run` over questions begin..end, in this process."""
    from chorus_eval import cli
    lines = arguments.qa.read_text(encoding="utf-8").splitlines(keepends=True)[begin:end]
    with tempfile.TemporaryDirectory(prefix="chorus-eval-speed-") as folder:
        data, output = pathlib.Path(folder) / "qa.jsonl", pathlib.Path(folder) / "out"
        data.write_text("".join(lines), encoding="utf-8")
        command = ["run", f"--server={target}", f"--data={data}", f"--few-shot={EXAMPLES_FILE}",
                   f"--max-new-tokens={MAX_NEW_TOKENS}", f"--output={output}", "--no-figures",
                   *method_options(methods)]
        complaints = io.StringIO()
        start = time.perf_counter()
        with (contextlib.redirect_stdout(io.StringIO()),
              contextlib.redirect_stderr(complaints)):
            code = cli.main(command)
        seconds = time.perf_counter() - start
        if code != 0:
            raise common.BenchError(f"chorus-eval ended with {code}:\n{complaints.getvalue()}")
        results = (output / "results.jsonl").read_text(encoding="utf-8")
        records = [json.loads(line) for line in results.splitlines()]
    return {"seconds": seconds, "records": records}


def server_of(arguments):
    return common.Server(arguments.binary, arguments.model, arguments.dtype, arguments.threads)


def steps_of(server):
    """(forward passes, rows) that the server has run."""
    with urllib.request.urlopen(server.metrics_url, timeout=common.CALL_SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
    return tuple(int(float(values[f"chorus_step_rows_{part}"])) for part in ("count", "sum"))


def measure_all(arguments, methods):
    """A row of `methods` as one command on a fresh server, over all questions."""
    with server_of(arguments) as server:
        # The prefix of the frame is cached from here on, as on any server that has answered once.
        run_eval(arguments, server.target, methods, arguments.limit, arguments.limit + 1)
        before = steps_of(server)
        done = run_eval(arguments, server.target, methods, 0, arguments.limit)
        passes, rows = (after - first for after, first in zip(steps_of(server), before))
    answers = len(done["records"])
    return {"methods": list(methods), "questions": arguments.limit, "seconds": done["seconds"],
            "seconds_per_answer": done["seconds"] / answers, "passes_per_answer": passes / answers,
            "rows_per_answer": rows / answers}


def same_answers(ours, theirs):
    """How many questions have the same first line(s) on both sides."""
    count = 0
    for record, lines in zip(ours, theirs["lines"], strict=True):
        own = record["method"] == "per_prompt"
        texts = record["prompt_answers"] if own else [record["answer"]]
        count += [text.split("\n")[0] for text in texts] == lines
    return count


def compare(arguments, reference, method):
    """Both sides in turns over the first --compared questions."""
    totals = {"ours": 0.0, "theirs": 0.0, "same": 0}
    with server_of(arguments) as server:
        last = arguments.limit + 1
        run_eval(arguments, server.target, [method], arguments.limit, last)
        reference.answer(method, arguments.limit, last)
        for index, begin in enumerate(range(0, arguments.compared, arguments.block)):
            end = min(begin + arguments.block, arguments.compared)
            found = {}
            for side in ("ours", "theirs") if index % 2 == 0 else ("theirs", "ours"):
                found[side] = (run_eval(arguments, server.target, [method], begin, end)
                               if side == "ours" else reference.answer(method, begin, end))
            for side, done in found.items():
                totals[side] += done["seconds"]
            totals["same"] += same_answers(found["ours"]["records"], found["theirs"])
            print(f"{method}: {end}/{arguments.compared}", file=sys.stderr, flush=True)
    return {"method": method, "questions": arguments.compared, "chorus_seconds": totals["ours"],
            "transformers_seconds": totals["theirs"],
            "times_faster": totals["theirs"] / totals["ours"], "same_first_lines": totals["same"]}


def faster_reference(arguments):
    """(dtype, {dtype: seconds}): what Transformers answers the first questions faster in."""
    seconds = {}
    for dtype in arguments.reference_dtypes.split(","):
        with Reference(arguments, dtype) as reference:
            for method in arguments.methods:
                reference.answer(method, 0, 1)
            seconds[dtype] = sum(reference.answer(method, 0, PROBE_QUESTIONS)["seconds"]
                                 for method in arguments.methods)
    return min(seconds, key=seconds.get), seconds


def compared_markdown(rows):
    total = {key: sum(row[key] for row in rows) for key in
             ("chorus_seconds", "transformers_seconds", "questions", "same_first_lines")}
    total.update(method="together",
                 times_faster=total["transformers_seconds"] / total["chorus_seconds"])
    return common.markdown_table(
        ["method", "chorus-eval, s a question", "Transformers", "times faster", "same answers"],
        [[row["method"], f"{row['chorus_seconds'] / row['questions']:.4f}",
          f"{row['transformers_seconds'] / row['questions']:.3f}", f"{row['times_faster']:.1f}",
          f"{row['same_first_lines']} of {row['questions']}"] for row in [*rows, total]])


def alone_markdown(rows):
    return common.markdown_table(
        ["method", "questions", "seconds", "s an answer", "forward passes an answer",
         "rows an answer"],
        [[", ".join(row["methods"]), row["questions"], f"{row['seconds']:.1f}",
          f"{row['seconds_per_answer']:.4f}", f"{row['passes_per_answer']:.2f}",
          f"{row['rows_per_answer']:.1f}"] for row in rows])


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=common.SERVER_BINARY)
    parser.add_argument("--model", type=pathlib.Path, default=common.DEFAULT_MODEL)
    parser.add_argument("--dtype", default="bfloat16", help="of the server")
    parser.add_argument("--qa", type=pathlib.Path, default=common.QUESTIONS_FILE)
    parser.add_argument("--limit", type=int, default=200,
                        help="questions; one more is for warming up")
    parser.add_argument("--compared", type=int, default=40,
                        help="questions that both sides answer")
    parser.add_argument("--block", type=int, default=20, help="of them, at a time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=[*common.METHODS, "ALL"],
                        default=list(FIVE_METHODS))
    parser.add_argument("--no-reference", action="store_true",
                        help="each method over all questions, alone")
    parser.add_argument("--no-whole", action="store_true",
                        help="leave out the run of all methods as one command")
    parser.add_argument("--reference-python", type=pathlib.Path,
                        default=pathlib.Path(sys.executable),
                        help="interpreter with torch and transformers")
    parser.add_argument("--reference-dtypes", default="float32,bfloat16",
                        help="the faster one counts")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="JSON")
    parser.add_argument("--seconds", type=pathlib.Path, metavar="FILE",
                        help="with --no-reference: JSON for chorus-eval experiment --seconds")
    arguments = parser.parse_args()
    if "ALL" in arguments.methods:
        arguments.methods = list(common.METHODS)
    if min(arguments.limit, arguments.compared, arguments.block, arguments.threads) < 1:
        parser.error("--limit, --compared, --block and --threads must be at least 1")
    return arguments


def main():
    arguments = parse_arguments()
    document = {"dtype": arguments.dtype, "threads": arguments.threads,
                "max_new_tokens": MAX_NEW_TOKENS}
    if not arguments.no_whole:
        document["whole"] = measure_all(arguments, arguments.methods)
        print(f"All as one command, fresh server:\n\n{alone_markdown([document['whole']])}\n",
              flush=True)
    if arguments.no_reference:
        document["alone"] = [measure_all(arguments, [method]) for method in arguments.methods]
        print(f"Each method on a fresh server:\n\n{alone_markdown(document['alone'])}")
        if arguments.seconds:
            names = {row["methods"][0]: row["seconds_per_answer"] for row in document["alone"]}
            common.write_json(arguments.seconds, {LABELS.get(name, name): round(seconds, 5)
                                                  for name, seconds in names.items()})
    else:
        dtype, document["reference_probe_seconds"] = faster_reference(arguments)
        with Reference(arguments, dtype) as reference:
            document["compared"] = [compare(arguments, reference, method)
                                    for method in arguments.methods]
        document["reference_dtype"] = dtype
        print(f"chorus-eval ({arguments.dtype}) and Transformers ({dtype}) in turns, each method "
              f"on a fresh server:\n\n{compared_markdown(document['compared'])}")
    common.write_json(arguments.output, document)
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
