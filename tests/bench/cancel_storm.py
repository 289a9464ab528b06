#!/usr/bin/env python3
"""Does a server come back clean after thousands of requests were cancelled at random moments?

    python3 tests/bench/cancel_storm.py [--requests 2000] [--storms 3] [--output RESULT.json]
    python3 tests/bench/cancel_storm.py --requests 200 --storms 1 --kv-cache-bytes 64MiB     a trial

One real server; `chorus load --cancel=1` with short and long prompts at the same time, all methods,
more callers than the server runs at once, so that requests are cancelled in the queue, while their
prompts are read, and while they generate. First the cache is filled and one storm of the same kind
is a warm-up. After every storm:
  - once idle, nothing runs or waits and no key and value space is used
  - accepted requests = finished by outcome; every call that the clients sent has ended, well or
    cancelled, none with an error
  - the same questions get the same token ids as before all storms
  - the resident set has grown by at most --max-growth percent since the warm-up
Exit code 1, and a sentence for everything that is not so. Needs: python3 -m pip install -r
tests/bench/requirements.txt.
"""

import argparse
import sys
import time

import bench_common as common
import load_common

# Flags of each load, and its share of the requests and of the callers.
LOADS = {
    "questions": (0.5, ["--data={qa}", "--unique", "--max_new_tokens=64"]),
    "many short prompts": (0.3, ["--synthetic=16x10", "--prefix_tokens=40", "--suffix_tokens=4",
                                 "--max_new_tokens=64", "--ignore_eos"]),
    "long prompts": (0.2, ["--synthetic=3x700", "--max_new_tokens=64", "--ignore_eos"]),
}
PROBE_METHODS = ("attention", "attention_sequential", "logit_mean", "per_prompt", "vote")
PROBE_TOKENS = 12


def storm_flags(arguments, seed):
    """The flags of every load. Each has callers, however small its share."""
    return [[*(flag.format(qa=arguments.qa) for flag in flags), "--method=all", "--cancel=1",
             f"--cancel_within={arguments.cancel_within}s", f"--seed={seed}",
             f"--clients={max(1, round(share * arguments.clients))}",
             f"--requests={max(1, round(share * arguments.requests))}"]
            for share, flags in LOADS.values()]


def answers_of(stub, arguments, messages):
    """Token ids by method, of requests that nobody cancels."""
    question = common.read_questions(arguments.qa, 1)[0]
    answers = {}
    for method in PROBE_METHODS:
        finish = common.generate(stub, common.make_request(messages, question, method,
                                                           PROBE_TOKENS, ignore_eos=True))
        prompts = [list(prompt.token_ids) for prompt in finish.prompts]
        answers[method] = [list(finish.token_ids), *prompts]
    return answers


def load_problems(loads):
    """What the clients saw that they should not."""
    problems = []
    for name, load in zip(LOADS, loads):
        requests = load["requests"]
        if requests["errors"]:
            problems.append(f"{name}: the clients saw {requests['errors']}: "
                            f"{load['error_messages']}")
        if requests["sent"] != (requests["ok"] + requests["cancelled"]
                                + sum(requests["errors"].values())):
            problems.append(f"{name}: of {requests['sent']} calls not all ended: {requests}")
    return problems


def run_storm(name, server, stub, arguments, seed, messages):
    """{"seconds", "sent", "cancelled", "outcomes", "resident_mib", "answers", "problems"}."""
    before = load_common.scrape(server)
    begin = time.monotonic()
    loads = load_common.run_loads(arguments.load_binary, server, storm_flags(arguments, seed))
    seconds = time.monotonic() - begin
    metrics = load_common.wait_until_idle(server)
    problems = (load_problems(loads) + load_common.idle_problems(metrics)
                + load_common.conservation_problems(metrics))
    result = {"name": name, "seconds": seconds,
              "sent": sum(load["requests"]["sent"] for load in loads),
              "cancelled": sum(load["requests"]["cancelled"] for load in loads),
              "accepted": int(metrics.total("chorus_requests_accepted_total")
                              - before.total("chorus_requests_accepted_total")),
              "outcomes": load_common.outcomes(metrics, since=before),
              "preemptions": int(metrics.total("chorus_preemptions_total")
                                 - before.total("chorus_preemptions_total")),
              "answers": answers_of(stub, arguments, messages),
              "resident_mib": server.memory_mib()["resident"], "problems": problems}
    print(f"{name}: {result['sent']} sent in {seconds:.0f} s, {result['cancelled']} cancelled, "
          f"resident {result['resident_mib']:.0f} MiB", file=sys.stderr, flush=True)
    return result


def compare(storm, expected, baseline_mib, arguments):
    """Adds what differs from before the storms."""
    for method, answer in storm.pop("answers").items():
        if answer != expected[method]:
            storm["problems"].append(f"{method}: the same question has another answer than before "
                                     "the storms")
    storm["growth"] = storm["resident_mib"] / baseline_mib - 1
    if storm["growth"] > arguments.max_growth / 100:
        storm["problems"].append(
            f"the resident set grew from {baseline_mib:.0f} to {storm['resident_mib']:.0f} MiB, by "
            f"more than {arguments.max_growth:g} %")


def measure(arguments, messages, services):
    """A list of storms, the warm-up first."""
    flags = [f"--kv_cache_bytes={arguments.kv_cache_bytes}", "--log_level=warning",
             f"--max_running_requests={arguments.max_running}",
             # A cancelled request keeps its place in the queue until the next step: room for all.
             f"--max_queued_requests={2 * arguments.requests}"]
    with (common.Server(arguments.binary, arguments.model, arguments.dtype, arguments.threads,
                        flags) as server,
          common.connection(server.target, services) as stub):
        info = stub.GetModelInfo(messages.GetModelInfoRequest(), timeout=common.CALL_SECONDS)
        expected = answers_of(stub, arguments, messages)
        load_common.fill_cache(arguments.load_binary, server, info.kv_slots)
        storms = []
        for number in range(arguments.storms + 1):
            name = f"storm {number}" if number else "warm-up"
            storms.append(run_storm(name, server, stub, arguments, number + 1, messages))
            compare(storms[-1], expected, storms[0]["resident_mib"], arguments)
    return storms


def markdown(storms):
    rows = [[storm["name"], storm["sent"], storm["cancelled"], storm["accepted"],
             ", ".join(f"{count} {outcome}" for outcome, count in storm["outcomes"].items()),
             storm["preemptions"], f"{storm['seconds']:.0f}", f"{storm['resident_mib']:.1f}",
             f"{storm['growth']:+.2%}", len(storm["problems"])] for storm in storms]
    return common.markdown_table(
        ["", "sent", "cancelled by clients", "accepted", "server's outcomes", "preemptions",
         "seconds", "resident MiB", "growth", "problems"], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    load_common.add_server_arguments(parser, dtype="bfloat16")
    parser.add_argument("--qa", default=str(common.QUESTIONS_FILE))
    parser.add_argument("--requests", type=int, default=2000, help="of one storm")
    parser.add_argument("--storms", type=int, default=3, help="after the warm-up")
    parser.add_argument("--clients", type=int, default=160)
    parser.add_argument("--max-running", type=int, default=64,
                        help="the server's --max_running_requests: fewer than --clients")
    parser.add_argument("--cancel-within", type=float, default=4.0, metavar="SECONDS",
                        help="each call is cancelled at a random moment until then; default 4")
    parser.add_argument("--kv-cache-bytes", default="512MiB",
                        help="the server's; the cache is filled first; default 512MiB")
    parser.add_argument("--max-growth", type=float, default=2.0, metavar="PERCENT",
                        help="of the resident set after the warm-up; default 2")
    arguments = parser.parse_args()
    if min(arguments.requests, arguments.storms, arguments.clients, arguments.threads) < 1:
        parser.error("counts must be at least 1")
    return arguments


def main():
    arguments = parse_arguments()
    with common.stubs() as (messages, services):
        storms = measure(arguments, messages, services)
    print(f"\n{arguments.dtype}, {arguments.threads} threads, {arguments.clients} callers, at most "
          f"{arguments.max_running} running\n\n{markdown(storms)}")
    common.write_json(arguments.output, {
        "dtype": arguments.dtype, "threads": arguments.threads, "clients": arguments.clients,
        "max_running": arguments.max_running, "storms": storms})
    problems = [f"{storm['name']}: {problem}" for storm in storms for problem in storm["problems"]]
    if problems:
        raise common.BenchError("the server did not come back clean:\n  " + "\n  ".join(problems))
    print("\nclean: idle, all accepted requests accounted for, the same answers as before")
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
