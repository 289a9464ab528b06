#!/usr/bin/env python3
"""Rehearses a rolling upgrade on this machine: three servers behind client-side load balancing, each
drained by SIGTERM and replaced at its address while callers go on asking. Not one request may fail,
and every answer must have the tokens that a server gives at rest.

    PYTHONPATH=client/python .venv/bin/python tests/e2e/upgrade_test.py --bin build/release/bin
    ... upgrade_test.py --bin build/release/bin --requests 2000 --model models/smollm2-135m-instruct

Stricter than callers need: the client's own retries are off, so a single refused call counts as a
failure. Servers go on taking requests for --drain_delay after they have said NOT_SERVING, which is
when the balancer turns to the others.
"""
import argparse
import contextlib
import json
import pathlib
import sys
import threading
import time

from chorus_client import ChorusError, Client, RetryPolicy, make_request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from server_process import ServerProcess  # noqa: E402 - it lies beside this file

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_SERVERS = 3
DRAIN_SECONDS = 60  # until a server must have drained, and until its successor must be found
NUM_DISTINCT = 60
METHODS = ("attention", "logit_mean", "vote", "per_prompt", "prob_max")


def questions(count, max_new_tokens):
    """Different requests of several methods, greedy and sampled."""
    rows = [json.loads(line) for line in (ROOT / "tests/data/qa.jsonl").read_text().splitlines()]
    requests = []
    for i in range(count):
        row = rows[i % len(rows)]
        requests.append(make_request(
            row["question"], row["paraphrases"][:2], method=METHODS[i % len(METHODS)],
            max_new_tokens=max_new_tokens, temperature=0.0 if i % 2 else 0.8, seed=i + 1))
    return requests


def tokens_of(answer):
    """Every token of an answer: of each prompt where prompts answer for themselves."""
    return [list(answer.token_ids), [list(one.token_ids) for one in answer.finish.prompts]]


class Callers:
    """Threads that ask `requests` over and over, each its next one, until at least `least` have ended
    and stop() was called."""

    def __init__(self, client, requests, expected, count):
        self._client, self._requests, self._expected = client, requests, expected
        self._lock = threading.Lock()
        self._next = 0
        self._stopping = threading.Event()
        self.done = 0
        self.problems = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self):
        while not self._stopping.is_set():
            with self._lock:
                index = self._next % len(self._requests)
                self._next += 1
            problem = None
            try:
                tokens = tokens_of(self._client.generate(self._requests[index], deadline=120))
                if tokens != self._expected[index]:
                    problem = f"request {index}: tokens {tokens}, not {self._expected[index]}"
            except ChorusError as error:
                problem = f"request {index}: {error.code}: {error}"
            with self._lock:
                self.done += 1
                if problem:
                    self.problems.append(problem)

    def wait_for(self, count):
        while self.done < count and not self.problems:
            time.sleep(0.01)

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def reference(target, requests):
    """What a server at rest answers, request by request."""
    with Client(target) as client:
        return [tokens_of(client.generate(request)) for request in requests]


def answered(server):
    """Requests that ended so far, however."""
    return sum(value for series, value in server.metrics().items()
               if series.startswith("chorus_requests_finished_total{"))


def replace(servers, index, start, callers, pause):
    """Drains one server, puts a new one in its place, and waits until that answers too."""
    old = servers[index]
    began = time.monotonic()
    code = old.terminate(DRAIN_SECONDS)
    drained = time.monotonic() - began
    log = old.log_text()
    old.close()
    if code != 0 or '"all_finished":"yes"' not in log:
        raise AssertionError(f"server {index} ended with {code} and unfinished requests:\n{log[-2000:]}")
    servers[index] = start(old.ports["grpc"])
    deadline = time.monotonic() + DRAIN_SECONDS
    while answered(servers[index]) == 0 and not callers.problems:
        if time.monotonic() > deadline:
            raise AssertionError(f"no caller came to the new server {index} in {DRAIN_SECONDS} s")
        time.sleep(0.05)
    print(f"server {index}: drained in {drained:.1f} s and replaced; {callers.done} answers so far")
    callers.wait_for(callers.done + pause)


def rehearse(args):
    requests = questions(min(NUM_DISTINCT, args.requests), args.max_new_tokens)

    def start(port=0):
        return ServerProcess(args.bin, args.model, f"--threads={args.threads}", "--log_format=json",
                             f"--drain_delay={args.drain_delay}", port=port).wait_until_serving()

    servers = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [server.close() for server in servers])
        servers += [start() for _ in range(NUM_SERVERS)]
        expected = reference(f"127.0.0.1:{servers[0].ports['grpc']}", requests)
        target = "ipv4:" + ",".join(f"127.0.0.1:{server.ports['grpc']}" for server in servers)
        # Every call is made once: what the client library would ask again counts as a failure here.
        client = stack.enter_context(Client(target, retry=RetryPolicy(max_attempts=1)))
        began = time.monotonic()
        callers = Callers(client, requests, expected, args.callers)
        stack.callback(callers.stop)
        pause = args.requests // (NUM_SERVERS + 1)
        callers.wait_for(pause)
        for index in range(NUM_SERVERS):
            replace(servers, index, start, callers, pause)
        callers.wait_for(args.requests)
        callers.stop()
        seconds = time.monotonic() - began
        shares = [int(answered(server)) for server in servers]
    print(f"{callers.done} requests in {seconds:.1f} s by {args.callers} callers, every call made once: "
          f"{len(callers.problems)} failed or wrong; the new servers answered {shares}")
    for problem in callers.problems[:10]:
        print(problem)
    return 1 if callers.problems or callers.done < args.requests else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--requests", type=int, default=300, help="at least so many are asked (300)")
    parser.add_argument("--callers", type=int, default=8, help="requests at a time (8)")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "tests/golden/models/tiny_gqa")
    parser.add_argument("--threads", type=int, default=1, help="compute threads of each server (1)")
    parser.add_argument("--drain_delay", default="1s", help="of the servers (1s)")
    parser.add_argument("--max_new_tokens", type=int, default=8)
    args = parser.parse_args()
    return rehearse(args)


if __name__ == "__main__":
    sys.exit(main())
