#!/usr/bin/env python3
"""What a long prompt does to the streams that are running when it comes.

    python3 tests/bench/stall.py [--share-rows 8,16,32] [--repeats 5] [--output RESULT.json]
    python3 tests/bench/stall.py --share-rows 16 --repeats 1                          a trial

On a fresh server each time, `chorus load --stall_probe` sends one prompt of 2,000 random tokens
among 16 streams. --share-rows lists values of the server's --prompt_share_rows, rows that a prompt
may take of a step while others generate: fewer keep the streams smoother, more bring the probe's
first token sooner. The values take turns, so that a drift of the machine hits them alike. The table
shows medians of the repeats: the gap between two tokens of a stream before the probe (median) and
during it (99th percentile, maximum), p99 / before, and the probe's time to its first token.
Needs no Python package.
"""

import argparse
import statistics
import sys

import bench_common as common
import load_common

KEYS = {"before_ms": ("median_inter_token_before", 1e3),
        "p99_during_ms": ("p99_inter_token_during", 1e3),
        "max_during_ms": ("max_inter_token_during", 1e3), "ratio": ("ratio", 1.0),
        "probe_ttft_seconds": ("ttft_seconds", 1.0)}


def measure_once(share_rows, arguments):
    flags = [f"--synthetic={arguments.prompts}", f"--clients={arguments.streams}",
             f"--max_new_tokens={arguments.stream_tokens}", "--ignore_eos",
             f"--stall_probe={arguments.probe_tokens}",
             f"--stall_probe_after={arguments.probe_after}s",
             # Nobody asks again: whoever runs at the probe has run from the start.
             f"--duration={arguments.probe_after + 1}s", f"--method={arguments.method}"]
    server_flags = [f"--prompt_share_rows={share_rows}", *arguments.server_flag]
    with common.Server(arguments.binary, arguments.model, arguments.dtype, arguments.threads,
                       server_flags) as server:
        load = load_common.run_load(arguments.load_binary, server, flags, quiet=True)
    probe = load["stall_probe"]
    if probe["error"]:
        raise common.BenchError(f"the probe failed: {probe['error']}")
    if load["requests"]["ok"] != arguments.streams:
        raise common.BenchError(
            f"of {arguments.streams} streams {load['requests']['sent']} were sent and "
            f"{load['requests']['ok']} ended well: a stream must outlast the probe's sending; raise "
            f"--stream-tokens or lower --probe-after. {load['error_messages']}")
    # The median before is of running streams only if they ran for most of that time.
    if load["ttft_seconds"]["max"] > arguments.probe_after / 2:
        raise common.BenchError(f"a stream read its prompt for {load['ttft_seconds']['max']:.1f} s: "
                                "raise --probe-after to twice that, and --stream-tokens with it")
    # All streams began together and are equally long, so their median says when they ended.
    if load["end_to_end_seconds"]["p50"] < arguments.probe_after + probe["ttft_seconds"]:
        raise common.BenchError("the streams ended before the probe's first token: raise "
                                "--stream-tokens")
    return {key: probe[name] * factor for key, (name, factor) in KEYS.items()}


def measure_all(arguments):
    """{share_rows: [figures of each repeat]}."""
    found = {share_rows: [] for share_rows in arguments.share_rows}
    progress = common.Progress("runs", len(found) * arguments.repeats)
    for _ in range(arguments.repeats):
        for share_rows, repeats in found.items():
            repeats.append(measure_once(share_rows, arguments))
            progress.step()
    return found


def markdown(medians):
    rows = [[share_rows, f"{row['before_ms']:.1f}", f"{row['p99_during_ms']:.1f}",
             f"{row['max_during_ms']:.1f}", f"{row['ratio']:.2f}",
             f"{row['probe_ttft_seconds']:.2f}"] for share_rows, row in medians.items()]
    return common.markdown_table(
        ["prompt_share_rows", "median gap before, ms", "p99 during, ms", "max during, ms",
         "p99 during / before", "probe's first token, s"], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    load_common.add_server_arguments(parser, dtype="bfloat16")
    parser.add_argument("--share-rows", type=lambda text: [int(n) for n in text.split(",")],
                        default=[8, 16, 32], help="default 8,16,32")
    parser.add_argument("--repeats", type=int, default=5, help="fresh servers for each value")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--stream-tokens", type=int, default=700, help="a stream generates so many")
    parser.add_argument("--prompts", default="6x20", metavar="PROMPTSxTOKENS",
                        help="of each stream; default 6x20")
    parser.add_argument("--method", default="attention", help="of the streams; default attention")
    parser.add_argument("--probe-tokens", type=int, default=2000)
    parser.add_argument("--probe-after", type=int, default=10, metavar="SECONDS",
                        help="by half of that the streams must be past their prompts; default 10")
    parser.add_argument("--server-flag", action="append", default=[], metavar="--NAME=VALUE",
                        help="given to chorus-server; repeatable")
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.streams, arguments.threads, arguments.probe_after,
           arguments.probe_tokens, arguments.stream_tokens, *arguments.share_rows) < 1:
        parser.error("counts must be at least 1")
    return arguments


def main():
    arguments = parse_arguments()
    found = measure_all(arguments)
    medians = {share_rows: {key: statistics.median(row[key] for row in repeats) for key in KEYS}
               for share_rows, repeats in found.items()}
    print(f"\n{arguments.streams} streams, then a prompt of {arguments.probe_tokens} tokens; "
          f"{arguments.dtype}, {arguments.threads} threads, medians of {arguments.repeats} repeats"
          f"\n\n{markdown(medians)}")
    common.write_json(arguments.output, {
        "dtype": arguments.dtype, "threads": arguments.threads, "streams": arguments.streams,
        "probe_tokens": arguments.probe_tokens, "prompts": arguments.prompts,
        "results": [{"prompt_share_rows": share_rows, "median": medians[share_rows],
                     "repeats": repeats} for share_rows, repeats in found.items()]})
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
