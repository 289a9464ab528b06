#!/usr/bin/env python3
"""Time to the first token with and without the segment cache.

    python3 tests/bench/segment_cache.py [--requests 10] [--output RESULT.json]
    python3 tests/bench/segment_cache.py --requests 2 --lengths 40 --cases attention     a trial

Six segments of random token ids, all new in each request, one request at a time:
  cold         never seen, prefix neither
  warm         the same request again
  other order  its segments rotated by one
  subset       four of its six segments
Each also goes to a second server that keeps nothing (--max_idle_cache_tokens=0) and says what the
answer is without a cache. Cases:
  attention             overlapping positions behind a prefix
  attention_sequential  positions in a row, no prefix: in another order a segment stands elsewhere
  logit_mean            every prompt a sequence of its own, behind a prefix
  per_prompt            the same, no fusion
"server" is Timing.first_token_seconds - queue_seconds, "caller" the clock of the caller around the
first token, both medians, in milliseconds; "cached" the share of the prompt tokens that the server
says it took from the cache. Exit code 1 if an answer differs from the second server's. Needs:
python3 -m pip install -r tests/bench/requirements.txt.
"""

import argparse
import contextlib
import random
import statistics
import sys
import time

import bench_common as common
import load_common

# name -> (method in bench_common.METHODS, whether there is a prefix)
CASES = {"attention": ("attention", True), "attention_sequential": ("attention_sequential", False),
         "logit_mean": ("logit_mean", True), "per_prompt": ("per_prompt", True)}
VARIANTS = ("cold", "warm", "other order", "subset")
NUM_SEGMENTS = 6
SUBSET_SEGMENTS = 4
SUFFIX_TOKENS = 4
FIRST_TOKEN_ID = 1000  # below lie special tokens and single bytes


class Prompts:
    """The random pieces of one request, and its variants."""

    def __init__(self, generator, length, prefix_tokens, vocab_size):
        def draw(count):
            return [generator.randrange(FIRST_TOKEN_ID, vocab_size) for _ in range(count)]

        self._prefix, self._suffix = draw(prefix_tokens), draw(SUFFIX_TOKENS)
        self._segments = [draw(length) for _ in range(NUM_SEGMENTS)]

    def _segments_of(self, variant):
        if variant == "other order":
            return self._segments[1:] + self._segments[:1]
        # Not the first ones: under sequential positions those would not even move.
        return self._segments[-SUBSET_SEGMENTS:] if variant == "subset" else self._segments

    def request(self, messages, method, variant, max_new_tokens):
        fusion, positions = common.METHODS[method]
        request = messages.GenerateRequest()
        request.prompt.tokens.prefix.token_ids.extend(self._prefix)
        request.prompt.tokens.suffix.token_ids.extend(self._suffix)
        for segment in self._segments_of(variant):
            request.prompt.tokens.segments.add().token_ids.extend(segment)
        request.fusion.method = messages.FusionMethod.Value(f"FUSION_METHOD_{fusion}")
        if positions:
            request.fusion.positions = messages.PositionMode.Value(f"POSITION_MODE_{positions}")
        request.stopping.max_new_tokens = max_new_tokens
        request.stopping.ignore_eos = True
        return request


def ask(stub, request):
    """One sample: both clocks in seconds, the cached share, and the answer's token ids."""
    begin, first, finish = time.perf_counter(), None, None
    for event in stub.Generate(request, timeout=common.CALL_SECONDS):
        if first is None and event.HasField("chunk") and event.chunk.token_ids:
            first = time.perf_counter() - begin
        if event.HasField("finish"):
            finish = event.finish
    if finish is None or first is None:
        raise common.BenchError("a stream ended without a token or without its last message")
    answers = [list(prompt.token_ids) for prompt in finish.prompts] or [list(finish.token_ids)]
    return {"server": finish.timing.first_token_seconds - finish.timing.queue_seconds,
            "caller": first, "cached": finish.usage.cached_tokens / finish.usage.prompt_tokens,
            "answers": answers}


def draw_prompts(arguments, case, length, vocab_size):
    """A list of Prompts, the same for the same seed."""
    generator = random.Random(f"{arguments.seed} {case} {length}")
    prefix_tokens = arguments.prefix_tokens if CASES[case][1] else 0
    return [Prompts(generator, length, prefix_tokens, vocab_size)
            for _ in range(arguments.requests)]


@contextlib.contextmanager
def serving(arguments, flags, services):
    """A stub of a fresh server."""
    with (common.Server(arguments.binary, arguments.model, arguments.dtype, arguments.threads,
                        flags) as server, common.connection(server.target, services) as stub):
        yield stub


def measure(arguments, cached, cacheless, messages):
    """({(case, length): {variant: [sample of each request]}}, the same without cache). Every
    request goes to both servers, one after the other, so that a drift hits them alike."""
    info = cached.GetModelInfo(messages.GetModelInfoRequest(), timeout=common.CALL_SECONDS)
    warm_up = Prompts(random.Random(arguments.seed), 100, 10, info.vocab_size)
    for stub in (cached, cacheless):
        ask(stub, warm_up.request(messages, "attention", "cold", 2))
    found, without = {}, {}
    progress = common.Progress("requests", len(arguments.cases) * len(arguments.lengths)
                               * arguments.requests)
    for case in arguments.cases:
        for length in arguments.lengths:
            for samples in (found, without):
                samples[case, length] = {name: [] for name in VARIANTS}
            for prompts in draw_prompts(arguments, case, length, info.vocab_size):
                for variant in VARIANTS:
                    request = prompts.request(messages, CASES[case][0], variant,
                                              arguments.max_new_tokens)
                    found[case, length][variant].append(ask(cached, request))
                    without[case, length][variant].append(ask(cacheless, request))
                progress.step()
    return found, without


def summary_of(samples, without_cache):
    """One line of the table a variant: medians, ratios, and how many answers are the same."""
    cold = {clock: statistics.median(sample[clock] for sample in samples["cold"])
            for clock in ("server", "caller")}
    lines = {}
    for variant in VARIANTS:
        line = {key: statistics.median(sample[key] for sample in samples[variant])
                for key in ("server", "caller", "cached")}
        line["server_without_cache"] = statistics.median(
            sample["server"] for sample in without_cache[variant])
        # A subset is compared with a cold subset: the second server's.
        line["times_faster"] = ((line["server_without_cache"] if variant == "subset"
                                 else cold["server"]) / line["server"])
        line["caller_times_faster"] = (None if variant == "subset"
                                       else cold["caller"] / line["caller"])
        line["same_answers"] = sum(mine["answers"] == other["answers"] for mine, other in
                                   zip(samples[variant], without_cache[variant]))
        line["requests"] = len(samples[variant])
        lines[variant] = line
    lines["warm"]["same_as_cold"] = sum(mine["answers"] == other["answers"] for mine, other in
                                        zip(samples["warm"], samples["cold"]))
    return lines


def markdown(results):
    rows = []
    for result in results:
        for variant, line in result["variants"].items():
            rows.append([f"{result['case']}, 6 x {result['length']}", variant,
                         f"{line['server'] * 1e3:.1f}", f"{line['caller'] * 1e3:.1f}",
                         f"{line['cached']:.0%}", f"{line['times_faster']:.1f}",
                         f"{line['server_without_cache'] * 1e3:.1f}",
                         f"{line['same_answers']} of {line['requests']}"])
    return common.markdown_table(
        ["segments", "request", "server ms", "caller ms", "cached", "cold / this",
         "server ms without cache", "answers equal to those without cache"], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    load_common.add_server_arguments(parser, dtype="bfloat16")
    parser.add_argument("--requests", type=int, default=10, help="different ones, of each kind")
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")],
                        default=[200, 40, 20], help="tokens of a segment; default 200,40,20")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--prefix-tokens", type=int, default=60)
    parser.add_argument("--max-new-tokens", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if min(arguments.requests, arguments.threads, arguments.max_new_tokens,
           *arguments.lengths) < 1:
        parser.error("counts and lengths must be at least 1")
    return arguments


def main():
    arguments = parse_arguments()
    with common.stubs() as (messages, services):
        with (serving(arguments, (), services) as cached,
              serving(arguments, ["--max_idle_cache_tokens=0"], services) as cacheless):
            samples, without = measure(arguments, cached, cacheless, messages)
    results = [{"case": case, "length": length,
                "variants": summary_of(found, without[case, length])}
               for (case, length), found in samples.items()]
    print(f"\nTime to the first token, {arguments.dtype}, {arguments.threads} threads, medians of "
          f"{arguments.requests} requests; of a subset, cold is the subset without cache"
          f"\n\n{markdown(results)}")
    common.write_json(arguments.output, {
        "dtype": arguments.dtype, "threads": arguments.threads, "requests": arguments.requests,
        "prefix_tokens": arguments.prefix_tokens, "seed": arguments.seed, "results": results})
    different = [f"{result['case']}, 6 x {result['length']}, {variant}" for result in results
                 for variant, line in result["variants"].items()
                 if line["same_answers"] != line["requests"]]
    if different:
        raise common.BenchError("answers differ from those without cache: " + "; ".join(different))
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
