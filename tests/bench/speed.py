#!/usr/bin/env python3
"""How fast each fusion method is, through gRPC, beside Transformers doing the same.

    python3 tests/bench/speed.py [--dtypes float32,bfloat16] [--output RESULT.json]
    python3 tests/bench/speed.py --no-reference --methods attention

For every method in turn: a fresh chorus-server for each dtype, then transformers_reference.py
(float32), never two at the same time, so that a drift of the machine hits them alike: the ratios
count, not the absolute figures. 20 questions with 5 paraphrases, exactly 16 new tokens, one request
at a time, 2 threads, after two questions of warm-up. Prefill is the time from leaving the queue to
the first token, decode the rest, as the server reports them; "s/question" is the caller's clock.
"of bandwidth" is the share of the measured memory read rate that reading every weight once a step
needs. Needs: python3 -m pip install -r tests/bench/requirements.txt, and for the reference an
interpreter with torch and transformers (--reference-python).
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import bench_common as common

KERNELS_BENCH = common.ROOT / "build" / "release" / "bin" / "kernels_bench"
REFERENCE = pathlib.Path(__file__).resolve().parent / "transformers_reference.py"
WARM_UP_QUESTIONS = 2
REFERENCE_SECONDS = 3600


def time_question(stub, request):
    """Sums of one request, in tokens and seconds."""
    begin = time.perf_counter()
    finish = common.generate(stub, request)
    wall = time.perf_counter() - begin
    timing, usage = finish.timing, finish.usage
    return {"encoded_tokens": usage.prompt_tokens - usage.cached_tokens,
            "cached_tokens": usage.cached_tokens,
            "prefill_seconds": timing.first_token_seconds - timing.queue_seconds,
            "decode_seconds": timing.total_seconds - timing.first_token_seconds,
            "generated_tokens": usage.generated_tokens, "wall_seconds": wall}


def check_length(method, arguments, generated, num_prompts):
    per_prompt = method in ("per_prompt", "vote")
    expected = arguments.max_new_tokens * (num_prompts if per_prompt else 1)
    if generated != expected:
        raise common.BenchError(f"{method} made {generated} tokens instead of {expected}: "
                                "its figures would not be comparable")


def measure_ours(method, dtype, arguments, messages, services):
    """One row of the table: the method on a fresh server."""
    questions = common.read_questions(arguments.qa, arguments.questions)
    requests = [common.make_request(messages, question, method, arguments.max_new_tokens,
                                    ignore_eos=True) for question in questions]
    with (common.Server(arguments.binary, arguments.model, dtype, arguments.threads) as server,
          common.connection(server.target, services) as stub):
        info = stub.GetModelInfo(messages.GetModelInfoRequest(), timeout=common.CALL_SECONDS)
        for request in requests[:WARM_UP_QUESTIONS]:
            common.generate(stub, request)
        samples = []
        progress = common.Progress(f"chorus {dtype} {method}", len(requests))
        for question, request in zip(questions, requests, strict=True):
            samples.append(time_question(stub, request))
            check_length(method, arguments, samples[-1]["generated_tokens"],
                         1 + len(question["paraphrases"]))
            progress.step()
        memory = server.memory_mib()
    total = {key: sum(sample[key] for sample in samples) for key in samples[0]}
    # The first token comes out of prefill; every further one is a step of all prompts in lockstep.
    steps = (arguments.max_new_tokens - 1) * len(samples)
    return {"prompt_tokens_per_question": total["encoded_tokens"] / len(samples),
            "cached_tokens_per_question": total["cached_tokens"] / len(samples),
            "prefill_tokens_per_second": total["encoded_tokens"] / total["prefill_seconds"],
            "prefill_seconds_per_question": total["prefill_seconds"] / len(samples),
            "decode_steps_per_second":
                steps / total["decode_seconds"] if total["decode_seconds"] > 0 else None,
            "seconds_per_question": total["wall_seconds"] / len(samples),
            "resident_mib": memory["resident"], "peak_rss_mib": memory["peak"],
            "weight_bytes": info.weight_bytes}


def measure_reference(method, arguments):
    """The same row from Transformers."""
    command = [str(arguments.reference_python), str(REFERENCE), "--model", str(arguments.model),
               "--qa", str(arguments.qa), "--questions", str(arguments.questions),
               "--max-new-tokens", str(arguments.max_new_tokens),
               "--threads", str(arguments.threads), "--methods", method]
    print(f"transformers float32 {method}", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=REFERENCE_SECONDS,
                          check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-5:])
        raise common.BenchError(f"the reference failed; --reference-python names an interpreter "
                                f"with torch and transformers, --no-reference leaves it out:\n{tail}")
    row = json.loads(done.stdout)["results"][0]
    return {"prompt_tokens_per_question": row["prompt_tokens_per_question"],
            "prefill_tokens_per_second": row["prefill_tokens_per_second"],
            "prefill_seconds_per_question": row["time_to_first_token_seconds"],
            "decode_steps_per_second": row["decode_steps_per_second"],
            "seconds_per_question": row["seconds_per_question"],
            "peak_rss_mib": row["peak_rss_mib"]}


def read_bandwidth(arguments):
    """Bytes a second that the threads read from memory, or None without kernels_bench."""
    if not arguments.kernels_bench.is_file():
        print(f"{arguments.kernels_bench} is not there: no share of the bandwidth",
              file=sys.stderr)
        return None
    print("measuring the memory's read rate", file=sys.stderr, flush=True)
    done = subprocess.run([str(arguments.kernels_bench), str(arguments.threads), "attention"],
                          capture_output=True, text=True, timeout=600, check=True)
    return json.loads(done.stdout)["read_gb_per_second"] * 1e9


def median_rows(rounds):
    """Field by field over the rounds; a field that a round lacks is lacking."""
    return {key: None if any(row[key] is None for row in rounds)
            else statistics.median(row[key] for row in rounds) for key in rounds[0]}


def measure_all(arguments, messages, services):
    """A list of {"method", "systems": {"chorus float32": row, "transformers float32": row}}."""
    results = []
    for method in arguments.methods:
        rounds = {}
        for _ in range(arguments.rounds):
            for dtype in arguments.dtypes.split(","):
                row = measure_ours(method, dtype, arguments, messages, services)
                rounds.setdefault(f"chorus {dtype}", []).append(row)
            if not arguments.no_reference:
                row = measure_reference(method, arguments)
                rounds.setdefault("transformers float32", []).append(row)
        results.append({"method": method, "rounds": rounds,
                        "systems": {name: median_rows(rows) for name, rows in rounds.items()}})
    return results


def add_ratios(results, bandwidth):
    """Adds to each of our rows the share of the bandwidth and the ratios to the reference's."""
    for result in results:
        reference = result["systems"].get("transformers float32")
        for name, row in result["systems"].items():
            if not name.startswith("chorus"):
                continue
            steps = row["decode_steps_per_second"]
            row["fraction_of_bandwidth"] = (
                steps * row["weight_bytes"] / bandwidth if bandwidth and steps else None)
            if reference is None:
                continue
            # Above 1: we are faster, or smaller. Prefill by time: the reference encodes the
            # prefix once a prompt where we encode it once, so its tokens are not our tokens.
            row["times_faster"] = {
                "prefill": reference["prefill_seconds_per_question"]
                           / row["prefill_seconds_per_question"],
                "decode": steps / reference["decode_steps_per_second"] if steps else None,
                "question": reference["seconds_per_question"] / row["seconds_per_question"],
                "memory": reference["peak_rss_mib"] / row["peak_rss_mib"]}


def shown(value, form):
    return "-" if value is None else format(value, form)


def speed_markdown(results):
    rows = []
    for result in results:
        for name, row in result["systems"].items():
            rows.append([
                result["method"], name, shown(row["prompt_tokens_per_question"], ".0f"),
                shown(row["prefill_tokens_per_second"], ".0f"),
                shown(row["decode_steps_per_second"], ".1f"),
                shown(row["seconds_per_question"], ".3f"), shown(row.get("resident_mib"), ".0f"),
                shown(row["peak_rss_mib"], ".0f"), shown(row.get("fraction_of_bandwidth"), ".0%")])
    return common.markdown_table(
        ["method", "system", "encoded tokens", "prefill tok/s", "decode steps/s", "s/question",
         "resident MiB", "peak MiB", "of bandwidth"], rows)


def ratio_markdown(results):
    rows = [[result["method"], name, *(shown(row["times_faster"][key], ".2f")
                                       for key in ("prefill", "decode", "question", "memory"))]
            for result in results for name, row in result["systems"].items()
            if "times_faster" in row]
    return common.markdown_table(["method", "system", "prefill time", "decode steps/s",
                                  "s/question", "peak memory"], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=common.SERVER_BINARY)
    parser.add_argument("--model", type=pathlib.Path, default=common.DEFAULT_MODEL)
    parser.add_argument("--dtypes", default="float32,bfloat16", help="comma-separated")
    parser.add_argument("--qa", type=pathlib.Path, default=common.QUESTIONS_FILE)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="of everything; medians are shown")
    parser.add_argument("--methods", nargs="+", choices=common.METHODS,
                        default=list(common.METHODS))
    parser.add_argument("--no-reference", action="store_true", help="without Transformers")
    parser.add_argument("--reference-python", type=pathlib.Path, default=pathlib.Path(sys.executable),
                        help="interpreter with torch and transformers")
    parser.add_argument("--kernels-bench", type=pathlib.Path, default=KERNELS_BENCH,
                        help="measures the memory's read rate")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="JSON")
    arguments = parser.parse_args()
    if min(arguments.questions, arguments.threads, arguments.rounds) < 1:
        parser.error("--questions, --threads and --rounds must be at least 1")
    if arguments.max_new_tokens < 2:
        parser.error("--max-new-tokens must be at least 2: the first token belongs to prefill")
    return arguments


def main():
    arguments = parse_arguments()
    with common.stubs() as (messages, services):
        bandwidth = read_bandwidth(arguments)
        results = measure_all(arguments, messages, services)
    add_ratios(results, bandwidth)
    print(f"\n{arguments.questions} questions, 6 prompts, {arguments.max_new_tokens} new tokens, "
          f"{arguments.threads} threads, one request at a time; memory read rate "
          f"{shown(bandwidth and bandwidth / 1e9, '.1f')} GB/s\n\n{speed_markdown(results)}")
    if not arguments.no_reference:
        print("\nTimes faster (memory: times smaller) than Transformers in the same run:\n\n"
              + ratio_markdown(results))
    common.write_json(arguments.output, {
        "questions": arguments.questions, "max_new_tokens": arguments.max_new_tokens,
        "threads": arguments.threads, "rounds": arguments.rounds,
        "read_bytes_per_second": bandwidth, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
