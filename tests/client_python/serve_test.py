#!/usr/bin/env python3
"""The Python package against the real server with a tiny model: calls, errors, chorus-eval, kills.

    PYTHONPATH=client/python .venv/bin/python tests/client_python/serve_test.py --bin build/release/bin
"""
import argparse
import asyncio
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

import chorus_client as chorus

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "golden" / "models" / "tiny_gqa"
QUESTIONS = ROOT / "tests" / "data" / "qa.jsonl"
EXAMPLES = ROOT / "tests" / "data" / "qa_examples.jsonl"
BIN = None


class Server:
    """chorus-server, which may be killed and started again at the same address."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.port_file = pathlib.Path(self.folder.name) / "ports.json"
        self.port = 0
        self.start()

    def start(self):
        self.port_file.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [BIN / "chorus-server", f"--model={MODEL}", f"--listen=127.0.0.1:{self.port}",
             "--metrics_listen=127.0.0.1:0", f"--port_file={self.port_file}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not self.port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the server did not start")
            time.sleep(0.02)
        self.port = json.loads(self.port_file.read_text())["grpc"]
        self.target = f"127.0.0.1:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        self.folder.cleanup()


class ServeTest(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.close)
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def test_both_clients_say_the_same_by_every_method(self):
        async def asynchronous(request):
            async with chorus.AsyncClient(self.server.target) as client:
                async with await client.stream(request) as stream:
                    return "".join([chunk.text async for chunk in stream]), stream.finish.token_ids

        with chorus.Client(self.server.target, deadline=60) as client:
            requests = [(method.value, chorus.make_request("What is big?", ["Is it big?", "Big?"], method=method,
                                                           max_new_tokens=6, ignore_eos=True)) for method in chorus.Method]
            many = {result.request_id: result.get() for result in client.generate_many(requests)}
            for name, request in requests:
                with self.subTest(name):
                    answer = client.generate(request)
                    self.assertEqual(many[name].token_ids, answer.token_ids)
                    self.assertEqual(6, len(answer.token_ids))
                    if name != "per_prompt":
                        self.assertEqual((answer.text, answer.token_ids), asyncio.run(asynchronous(request)))

    def test_errors_and_information(self):
        with chorus.Client(self.server.target, deadline=60) as client:
            with self.assertRaises(chorus.InvalidArgument) as caught:
                client.generate("q", top_p=1.5)
            self.assertEqual(("sampling.top_p", "1.5"), (caught.exception.field, caught.exception.value))
            self.assertTrue(caught.exception.limit)
            tokens = client.tokenize("big city")
            self.assertEqual("big city", client.detokenize(tokens.token_ids))
            self.assertEqual("tiny_gqa", client.model_info().name)

    def command(self, output):
        return [sys.executable, "-m", "chorus_eval.cli", "--server", self.server.target, "--data", str(QUESTIONS),
                "--limit", "40", "--few-shot", str(EXAMPLES), "--max-new-tokens", "16", "--stop", "zzz", "--output",
                str(self.folder / output), "--methods", "attention,logit_mean,per_prompt", "--concurrency", "4",
                "--no-figures", "--server-timeout", "60"]

    @contextlib.contextmanager
    def running(self, output, num_answers):
        """A run of which at least `num_answers` answers are on disk."""
        journal = self.folder / output / "journal.jsonl"
        process = subprocess.Popen(self.command(output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 60
            while not journal.exists() or journal.read_bytes().count(b"\n") < num_answers:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"no {num_answers} answers: {process.stderr.read()}")
                time.sleep(0.005)
            yield process
        finally:
            process.kill()
            process.communicate()

    def test_killed_runs_and_killed_servers_end_in_the_same_file(self):
        subprocess.run(self.command("whole"), check=True, capture_output=True, timeout=240)
        whole = (self.folder / "whole" / "results.jsonl").read_bytes()
        self.assertEqual(120, whole.count(b"\n"))
        self.assertNotIn(b'"error"', whole)

        for num_answers in (5, 60):
            with self.running("broken", num_answers) as process:
                process.kill()
        self.assertFalse((self.folder / "broken" / "results.jsonl").exists())
        subprocess.run(self.command("broken"), check=True, capture_output=True, timeout=240)
        self.assertEqual(whole, (self.folder / "broken" / "results.jsonl").read_bytes())

        with self.running("server", 30) as process:
            self.server.kill()
            time.sleep(1)
            self.server.start()
            _, err = process.communicate(timeout=240)
            self.assertEqual(0, process.returncode, err)
        self.assertIn("the server is gone", err)
        self.assertEqual(whole, (self.folder / "server" / "results.jsonl").read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    arguments, rest = parser.parse_known_args()
    BIN = arguments.bin.resolve()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
