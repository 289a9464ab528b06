#!/usr/bin/env python3
"""Makes the dashboard's picture for the documents: a real server under changing load, watched by a
real Prometheus for some minutes, then every panel drawn by deploy/grafana/draw_dashboard.py.

    .venv/bin/python tests/e2e/dashboard_picture.py --bin build/release/bin --output docs/images/dashboard.png
"""
import argparse
import contextlib
import pathlib
import sys
import time

import live_prometheus
import observed_servers

sys.path.insert(0, str(live_prometheus.ROOT / "deploy" / "grafana"))
import draw_dashboard  # noqa: E402

QUESTIONS = f"--data={observed_servers.QUESTIONS}"
# (share of the time at which it begins, at which it ends, flags of `chorus load`)
LOADS = (
    (0.0, 1.0, (QUESTIONS, "--rate=0.8", "--method=all", "--max_new_tokens=24")),
    (0.05, 1.0, (QUESTIONS, "--clients=1", "--attribution", "--disagreement", "--max_new_tokens=24", "--unique")),
    (0.3, 0.5, (QUESTIONS, "--rate=3", "--max_new_tokens=24", "--shuffle")),
    (0.55, 0.8, ("--synthetic=8x60", "--clients=5", "--max_new_tokens=48", "--cancel=0.2", "--cancel_within=3s")),
    (0.6, 0.7, (QUESTIONS, "--clients=4", "--timeout=4s", "--max_new_tokens=64", "--method=vote,per_prompt")),
    (0.7, 0.74, ("--synthetic=1x40", "--clients=36", "--max_new_tokens=16", "--error_pause=500ms")),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=5)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        prometheus = stack.enter_context(live_prometheus.Prometheus())
        server = observed_servers.Server(arguments.bin.resolve(), "--kv_cache_bytes=48MiB", "--max_queued_requests=24",
                                         "--max_idle_cache_tokens=1500")
        stack.callback(server.close)
        server.wait_until_serving()
        prometheus.watch({"chorus-0": server.ports["metrics"]})
        prometheus.wait_for(lambda: prometheus.query("chorus_requests_accepted_total"), "to see the server")
        start, seconds = time.monotonic(), arguments.minutes * 60
        events = sorted([(begin, index, True) for index, (begin, _, _) in enumerate(LOADS)]
                        + [(end, index, False) for index, (_, end, _) in enumerate(LOADS)])
        running = {}
        for share, index, begins in events:
            time.sleep(max(start + share * seconds - time.monotonic(), 0))
            if begins:
                running[index] = server.load(*LOADS[index][2])
            else:
                running[index].terminate()
        found = draw_dashboard.answers(f"http://127.0.0.1:{prometheus.port}", seconds, rate_interval="10s")
    note = (f"Drawn by matplotlib from the dashboard's own queries, not a screenshot of Grafana. {arguments.minutes:g} minutes of one "
            "server with SmolLM2-135M on two CPU cores, under load that changes; rules run 60 times as fast.")
    draw_dashboard.save(draw_dashboard.draw(found, note), arguments.output)


if __name__ == "__main__":
    main()
