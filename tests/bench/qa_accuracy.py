#!/usr/bin/env python3
"""How often each fusion method answers right: a table over the questions of tests/data/qa.jsonl.

    python3 tests/bench/qa_accuracy.py [--dtypes float32,bfloat16] [--output RESULT.json]
    python3 tests/bench/qa_accuracy.py --server=127.0.0.1:50051

Starts build/release/bin/chorus-server once for each dtype, or asks a running server. Frame: five
examples as shared prefix, "Q: {prompt}" for the question and each paraphrase, "\\nA:" as suffix;
greedy, up to 12 new tokens. Right: any gold answer is contained, ignoring case, in the answer's
first line. PER_PROMPT counts the mean over the prompts; "question alone" is its first prompt. The
table goes to standard output as Markdown; intervals are paired 95 % bootstrap intervals.
Needs: python3 -m pip install -r tests/bench/requirements.txt
"""

import argparse
import concurrent.futures
import pathlib
import sys

import bench_common as common

MAX_NEW_TOKENS = 12
FIRST_QUESTIONS = 80
ALONE = "question_alone"


def is_right(text, gold_answers):
    line = text.split("\n")[0].lower()
    return any(gold.lower() in line for gold in gold_answers)


def score(finish, method, gold_answers):
    """{row of the table: (score in 0..1, first line or lines)} of one answer."""
    if method != "per_prompt":
        return {method: (float(is_right(finish.text, gold_answers)), finish.text.split("\n")[0])}
    prompts = sorted(finish.prompts, key=lambda answer: answer.index)
    if not prompts:
        raise common.BenchError("PER_PROMPT came back without its prompts")
    right = [float(is_right(answer.text, gold_answers)) for answer in prompts]
    lines = [answer.text.split("\n")[0] for answer in prompts]
    return {method: (sum(right) / len(right), lines), ALONE: (right[0], lines[0])}


def ask_all(stub, messages, questions, methods, concurrency, label):
    """{row: [score a question]} and {row: [first line(s) a question]}, in the questions' order."""
    jobs = [(index, method) for method in methods for index in range(len(questions))]
    progress = common.Progress(f"{label}: answers", len(jobs))

    def ask(job):
        index, method = job
        # The stop string only saves time: what follows the first line counts for nothing.
        request = common.make_request(messages, questions[index], method, MAX_NEW_TOKENS,
                                      stop=["\n"])
        return index, score(common.generate(stub, request), method, questions[index]["answers"])

    scores, lines = {}, {}
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        futures = [pool.submit(ask, job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                index, rows = future.result()
                for row, (value, text) in rows.items():
                    scores.setdefault(row, [None] * len(questions))[index] = value
                    lines.setdefault(row, [None] * len(questions))[index] = text
                progress.step()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return scores, lines


def summary(scores):
    """{row: {"accuracy", "standard_error", on all and on the first; "minus_per_prompt"}}."""
    table = {}
    for row, values in scores.items():
        first = common.mean_and_error(values[:FIRST_QUESTIONS])
        everything = common.mean_and_error(values)
        table[row] = {
            "first": {"questions": len(values[:FIRST_QUESTIONS]), "accuracy": first[0],
                      "standard_error": first[1]},
            "all": {"questions": len(values), "accuracy": everything[0],
                    "standard_error": everything[1]}}
        if "per_prompt" in scores and row != "per_prompt":
            difference, low, high = common.paired_bootstrap(values, scores["per_prompt"])
            table[row]["minus_per_prompt"] = {"difference": difference, "low": low, "high": high}
    return table


def split_name(row):
    """(method, positions) as the table shows them."""
    if row in common.METHODS:
        fusion, positions = common.METHODS[row]
        return fusion, positions or "-"
    return "question alone", "-"


def interval(entry):
    return f"{entry['difference']:+.3f} [{entry['low']:+.3f}, {entry['high']:+.3f}]"


def accuracy_markdown(table):
    sizes = next(iter(table.values()))
    header = ["method", "positions", f"first {sizes['first']['questions']}",
              f"all {sizes['all']['questions']}", "minus PER_PROMPT (95 %, paired, all)"]
    rows = []
    for row, entry in table.items():
        cells = [f"{entry[part]['accuracy']:.3f} (se {entry[part]['standard_error']:.3f})"
                 for part in ("first", "all")]
        difference = entry.get("minus_per_prompt")
        rows.append([*split_name(row), *cells, interval(difference) if difference else "-"])
    return common.markdown_table(header, rows)


def compare_dtypes(names, scores):
    """{row: {"difference", "low", "high"}} of the second dtype minus the first."""
    first, second = (scores[name] for name in names)
    return {row: dict(zip(("difference", "low", "high"),
                          common.paired_bootstrap(second[row], first[row]), strict=True))
            for row in first}


def measure(stub, messages, arguments, label):
    questions = common.read_questions(arguments.qa, arguments.questions)
    scores, lines = ask_all(stub, messages, questions, arguments.methods, arguments.concurrency,
                            label)
    info = stub.GetModelInfo(messages.GetModelInfoRequest(), timeout=common.CALL_SECONDS)
    # The table's order, whatever the order in which answers came.
    order = [row for row in (ALONE, *common.METHODS) if row in scores]
    scores = {row: scores[row] for row in order}
    return {"model": info.name, "dtype": info.dtype, "server_version": info.server_version,
            "table": summary(scores), "scores": scores,
            "answers": {row: lines[row] for row in order},
            "ids": [question["id"] for question in questions]}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--server", metavar="HOST:PORT", help="a running server; else one is started")
    parser.add_argument("--binary", type=pathlib.Path, default=common.SERVER_BINARY)
    parser.add_argument("--model", type=pathlib.Path, default=common.DEFAULT_MODEL)
    parser.add_argument("--dtypes", default="float32",
                        help="comma-separated; two of them are compared too")
    parser.add_argument("--qa", type=pathlib.Path, default=common.QUESTIONS_FILE)
    parser.add_argument("--questions", type=int, help="the first N only")
    parser.add_argument("--methods", nargs="+", choices=common.METHODS,
                        default=list(common.METHODS), help="default: all")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at once")
    parser.add_argument("--threads", type=int, default=0, help="of the server; 0: all")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="JSON with every answer")
    arguments = parser.parse_args()
    if min(arguments.concurrency, arguments.questions or 1) < 1:
        parser.error("--concurrency and --questions must be at least 1")
    return arguments


def run_all(arguments, messages, services):
    """{dtype: result}."""
    if arguments.server:
        with common.connection(arguments.server, services) as stub:
            result = measure(stub, messages, arguments, arguments.server)
        return {result["dtype"]: result}
    results = {}
    for dtype in arguments.dtypes.split(","):
        with common.Server(arguments.binary, arguments.model, dtype, arguments.threads) as server:
            with common.connection(server.target, services) as stub:
                results[dtype] = measure(stub, messages, arguments, dtype)
    return results


def main():
    arguments = parse_arguments()
    with common.stubs() as (messages, services):
        results = run_all(arguments, messages, services)
    document = {"frame": {"prefix": common.PREFIX, "suffix": common.SUFFIX,
                          "max_new_tokens": MAX_NEW_TOKENS}, "results": results}
    for dtype, result in results.items():
        print(f"\n### {result['model']}, {dtype}\n\n{accuracy_markdown(result['table'])}")
    if len(results) == 2:
        names = list(results)
        comparison = compare_dtypes(names, {name: results[name]["scores"] for name in names})
        document["comparison"] = {"of": f"{names[1]} minus {names[0]}", "rows": comparison}
        rows = [[*split_name(row), interval(entry)] for row, entry in comparison.items()]
        print(f"\n### {names[1]} minus {names[0]}, all questions\n\n"
              + common.markdown_table(["method", "positions", "difference (95 %, paired)"], rows))
    common.write_json(arguments.output, document)
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
