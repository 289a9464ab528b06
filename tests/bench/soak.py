#!/usr/bin/env python3
"""Does a server at full load stay as it is for half an hour?

    python3 tests/bench/soak.py [--minutes 30] [--output RESULT.json]
    python3 tests/bench/soak.py --minutes 1                                          a trial

One real server whose key and value space is filled first, then `chorus load` in a closed loop with
all methods, all questions different. The resident set is sampled all along. At the end:
  - no call has ended with an error
  - accepted requests = finished by outcome, and nothing runs, waits or uses key and value space
  - the tokens that the server counts as generated are those that the clients got
  - the resident set of the last fifth is at most --max-growth percent above that of the first
    fifth after the warm-up
Exit code 1, and a sentence for everything that is not so. Needs: python3 -m pip install -r
tests/bench/requirements.txt.
"""

import argparse
import statistics
import sys
import time

import bench_common as common
import load_common

SAMPLE_SECONDS = 5
WARM_UP_SECONDS = 60


def load_flags(arguments, seconds, seed):
    return [f"--data={arguments.qa}", "--unique", "--method=all", f"--clients={arguments.clients}",
            f"--max_new_tokens={arguments.max_new_tokens}", "--ignore_eos",
            f"--duration={seconds}s", f"--seed={seed}"]


def sample_while(load, server, seconds):
    """A list of (seconds since the begin, resident MiB, generated tokens so far)."""
    begin = time.monotonic()
    samples = []
    while load.running():
        now = time.monotonic() - begin
        samples.append((now, server.memory_mib()["resident"],
                        load_common.scrape(server).total("chorus_generated_tokens_total")))
        if len(samples) % 12 == 0:
            print(f"{now / 60:.0f} of {seconds / 60:.0f} minutes: resident {samples[-1][1]:.0f} MiB, "
                  f"{samples[-1][2]:.0f} tokens", file=sys.stderr, flush=True)
        time.sleep(SAMPLE_SECONDS)
    return samples


def fifths(samples):
    """(first, last) fifth of the samples."""
    size = max(2, len(samples) // 5)
    return samples[:size], samples[-size:]


def rate(samples):
    """Generated tokens a second."""
    (first_time, _, first_tokens), (last_time, _, last_tokens) = samples[0], samples[-1]
    return (last_tokens - first_tokens) / max(last_time - first_time, 1e-9)


def measure(arguments, messages, services):
    flags = [f"--kv_cache_bytes={arguments.kv_cache_bytes}", "--log_level=warning"]
    seconds = round(arguments.minutes * 60)
    with (common.Server(arguments.binary, arguments.model, arguments.dtype, arguments.threads,
                        flags) as server,
          common.connection(server.target, services) as stub):
        info = stub.GetModelInfo(messages.GetModelInfoRequest(), timeout=common.CALL_SECONDS)
        load_common.fill_cache(arguments.load_binary, server, info.kv_slots)
        load_common.run_load(arguments.load_binary, server,
                             load_flags(arguments, min(WARM_UP_SECONDS, seconds), seed=1),
                             quiet=True)
        before = load_common.wait_until_idle(server)
        with load_common.Load(arguments.load_binary, server,
                              load_flags(arguments, seconds, seed=2), quiet=True) as load:
            samples = sample_while(load, server, seconds)
            result = load.result()
        metrics = load_common.wait_until_idle(server)
    return summarise(samples, result, before, metrics, arguments)


def summarise(samples, load, before, metrics, arguments):
    first, last = fifths(samples)
    resident = [statistics.median(row[1] for row in part) for part in (first, last)]
    growth = resident[1] / resident[0] - 1
    served = (metrics.total("chorus_generated_tokens_total")
              - before.total("chorus_generated_tokens_total"))
    problems = load_common.idle_problems(metrics) + load_common.conservation_problems(metrics)
    if load["requests"]["errors"]:
        problems.append(f"the clients saw {load['requests']['errors']}: {load['error_messages']}")
    if served != load["tokens"]["generated"]:
        problems.append(f"the server counts {served:.0f} generated tokens, the clients "
                        f"{load['tokens']['generated']}")
    if growth > arguments.max_growth / 100:
        problems.append(f"the resident set grew from {resident[0]:.1f} to {resident[1]:.1f} MiB")
    return {"minutes": samples[-1][0] / 60, "requests": load["requests"], "tokens": served,
            "tokens_per_second_first_fifth": rate(first),
            "tokens_per_second_last_fifth": rate(last), "resident_mib_first_fifth": resident[0],
            "resident_mib_last_fifth": resident[1], "growth": growth,
            "outcomes": load_common.outcomes(metrics, since=before), "problems": problems,
            "samples": samples}


def markdown(result):
    rows = [["minutes", f"{result['minutes']:.1f}"], ["answers", result["requests"]["ok"]],
            ["errors", sum(result["requests"]["errors"].values())],
            ["generated tokens", f"{result['tokens']:.0f}"],
            ["tokens/s, first and last fifth",
             f"{result['tokens_per_second_first_fifth']:.0f}, "
             f"{result['tokens_per_second_last_fifth']:.0f}"],
            ["resident MiB, first and last fifth",
             f"{result['resident_mib_first_fifth']:.1f}, {result['resident_mib_last_fifth']:.1f}"],
            ["growth", f"{result['growth']:+.2%}"]]
    return common.markdown_table(["soak", ""], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    load_common.add_server_arguments(parser, dtype="bfloat16")
    parser.add_argument("--qa", default=str(common.QUESTIONS_FILE))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--kv-cache-bytes", default="512MiB",
                        help="the server's; filled before the measurement; default 512MiB")
    parser.add_argument("--max-growth", type=float, default=1.0, metavar="PERCENT",
                        help="of the resident set; default 1")
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or min(arguments.clients, arguments.max_new_tokens) < 1:
        parser.error("--minutes, --clients and --max-new-tokens must be above 0")
    return arguments


def main():
    arguments = parse_arguments()
    with common.stubs() as (messages, services):
        result = measure(arguments, messages, services)
    print(f"\n{arguments.dtype}, {arguments.threads} threads, {arguments.clients} callers, all "
          f"methods\n\n{markdown(result)}")
    common.write_json(arguments.output, result)
    if result["problems"]:
        raise common.BenchError("the soak failed:\n  " + "\n  ".join(result["problems"]))
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
