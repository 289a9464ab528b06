#!/usr/bin/env python3
"""The real server with the real default model, asked through the real command, as a user would.

    .venv/bin/python tests/e2e/serve_test.py --bin build/release/bin
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import unittest

from server_process import ServerProcess

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "smollm2-135m-instruct"
QUESTION = ["What is the capital of France?",
            "--paraphrase=Which city is the capital of France?",
            "--paraphrase=Name the capital city of France.",
            "--paraphrase=What city serves as the capital of France?"]
METHODS = ["attention", "logit_mean", "prob_mean", "prob_max", "logit_max", "per_prompt", "vote"]
BIN = None


class Server(ServerProcess):
    """chorus-server on the default model, and the command that asks it."""

    def __init__(self, *flags):
        super().__init__(BIN, MODEL, *flags)

    def chorus(self, *arguments, check=True):
        done = subprocess.run([BIN / "chorus", arguments[0], f"--server=127.0.0.1:{self.ports['grpc']}", *arguments[1:]],
                              capture_output=True, text=True, timeout=120)
        if check and done.returncode != 0:
            raise AssertionError(f"chorus {arguments}: exit {done.returncode}\n{done.stderr}")
        return done

    def ask(self, *arguments):
        return [json.loads(line) for line in self.chorus("ask", *arguments, "--json").stdout.splitlines()]


def total(metrics, name):
    return sum(value for key, value in metrics.items() if key == name or key.startswith(name + "{"))


class ServeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--dtype=float32").__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def test_every_method_names_paris(self):
        for method in METHODS:
            with self.subTest(method):
                [answer] = self.server.ask(*QUESTION, f"--method={method}", "--max_new_tokens=24")
                self.assertIn("Paris", answer["text"])

    def test_requests_at_once_get_the_very_tokens_they_get_alone(self):
        asks = [[*QUESTION, f"--method={m}", "--max_new_tokens=16"] for m in METHODS]
        alone = [self.server.ask(*ask)[0]["token_ids"] for ask in asks]
        with concurrent.futures.ThreadPoolExecutor(len(asks)) as pool:
            together = list(pool.map(lambda ask: self.server.ask(*ask)[0]["token_ids"], asks))
        self.assertEqual(alone, together)

    def test_prototype_preset_gives_the_founding_prototypes_tokens(self):
        golden = json.loads((ROOT / "tests/golden/data/smollm2_prototype.json").read_text())
        for case in golden["cases"]:
            with self.subTest(case["name"]):
                question, *paraphrases = case["text"]["segments"]
                [answer] = self.server.ask(question, *[f"--paraphrase={p}" for p in paraphrases], "--preset=prototype",
                                           "--ignore_eos", f"--max_new_tokens={case['max_new_tokens']}")
                self.assertEqual(case["expected"]["token_ids"], answer["token_ids"])

    def test_bad_requests_get_one_clear_line_and_cost_nothing(self):
        done = self.server.chorus("ask", *QUESTION, "--top_p=1.5", check=False)
        self.assertEqual(1, done.returncode)
        self.assertIn("sampling.top_p", done.stderr)
        self.assertIn("1.5", done.stderr)
        [answer] = self.server.ask(*QUESTION, "--max_new_tokens=4")
        self.assertTrue(answer["token_ids"])

    def test_metrics_add_up(self):
        self.server.ask(*QUESTION, "--max_new_tokens=4")
        metrics = self.server.metrics()
        self.assertGreater(total(metrics, "chorus_requests_accepted_total"), 0)
        self.assertEqual(total(metrics, "chorus_requests_accepted_total"),
                         total(metrics, "chorus_requests_finished_total") + total(metrics, "chorus_requests_running")
                         + total(metrics, "chorus_requests_waiting"))

    def test_info_and_tokenize(self):
        info = json.loads(self.server.chorus("info", "--json").stdout)
        self.assertEqual(49152, info["vocab_size"])
        tokens = json.loads(self.server.chorus("tokenize", "Paris is big", "--json").stdout)
        text = self.server.chorus("detokenize", *map(str, tokens["token_ids"])).stdout
        self.assertEqual("Paris is big", text.rstrip("\n"))


class LifecycleTest(unittest.TestCase):
    def test_sigterm_finishes_running_streams_and_exits_0(self):
        with Server() as server:
            ask = subprocess.Popen([BIN / "chorus", "ask", f"--server=127.0.0.1:{server.ports['grpc']}", *QUESTION,
                                    "--max_new_tokens=60", "--ignore_eos", "--json"], stdout=subprocess.PIPE, text=True)
            while total(server.metrics(), "chorus_generated_tokens_total") < 1:
                self.assertIsNone(ask.poll(), "the answer ended before the drain could begin")
                time.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            output, _ = ask.communicate(timeout=60)
            self.assertEqual(0, ask.returncode)
            self.assertEqual(60, len(json.loads(output)["token_ids"]))
            self.assertEqual(0, server.process.wait(timeout=60))

    def test_bad_flags_exit_2_with_one_line(self):
        for flags, needle in [(["--model=/nowhere"], "/nowhere"), ([], "--model"), (["--no_such_flag"], "no_such_flag"),
                              ([f"--model={MODEL}", "--devices=cuda:63"], "cuda:63"), ([f"--model={MODEL}", "--dtype=int3"], "int3")]:
            with self.subTest(flags):
                done = subprocess.run([BIN / "chorus-server", *flags], capture_output=True, text=True, timeout=60)
                self.assertEqual(2, done.returncode, done.stderr)
                self.assertIn(needle, done.stderr)

    def test_a_busy_port_exits_1_and_says_so(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = subprocess.run([BIN / "chorus-server", f"--model={MODEL}", f"--listen=127.0.0.1:{port}", "--metrics_listen=127.0.0.1:0"],
                                  capture_output=True, text=True, timeout=120)
        self.assertEqual(1, done.returncode)
        self.assertIn(str(port), done.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    arguments, rest = parser.parse_known_args()
    BIN = arguments.bin.resolve()
    os.environ["NO_COLOR"] = "1"
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
