#!/usr/bin/env python3
"""The default model on a GPU, with two workers: what runs beside a request, graphs, and the other worker change no token.

    .venv/bin/python tests/e2e/gpu_test.py --bin build/release/bin

Needs an NVIDIA GPU and what CHORUS_CUDA=1 scripts/setup.sh installs; without a GPU it says so and skips everything.
"""
import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import unittest

from server_process import ServerProcess
from tiny_server import ROOT

MODEL = ROOT / "models" / "smollm2-135m-instruct"
QUESTIONS = [("What is the capital of Norway?", "Name Norway's capital city."),
             ("How many legs does a spider have?", "A spider walks on how many legs?"),
             ("Who wrote Hamlet?", "Hamlet was written by whom?", "Name the author of Hamlet."),
             ("What is ice made of?", "Of what substance does ice consist?")]
METHODS = ("attention", "logit_mean", "vote")
NUM_BESIDE = 12


def has_gpu():
    return any(pathlib.Path("/dev").glob("nvidia[0-9]*"))


def start(*flags):
    return ServerProcess(BIN, MODEL, "--devices=cuda:0", "--kv_cache_bytes=256MiB", *flags)


def ask(server, question, method="attention", seed=0):
    wordings = [question[0], *(f"--paraphrase={wording}" for wording in question[1:])]
    done = subprocess.run([BIN / "chorus", "ask", f"--server=127.0.0.1:{server.ports['grpc']}", *wordings, f"--method={method}",
                           "--max_new_tokens=24", "--ignore_eos", f"--seed={seed}", "--temperature=0.8", "--json"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["token_ids"]


def ask_all(server, num_at_once):
    cases = [(question, method, seed) for question in QUESTIONS for method in METHODS for seed in range(2)]
    with concurrent.futures.ThreadPoolExecutor(num_at_once) as pool:
        return list(pool.map(lambda case: ask(server, *case), cases))


class GpuTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not has_gpu():
            raise unittest.SkipTest("NOT RUN: this machine has no NVIDIA GPU")

    def test_nothing_beside_a_request_changes_its_tokens(self):
        with start() as server:
            alone = ask_all(server, 1)
            self.assertEqual(alone, ask_all(server, NUM_BESIDE), "in a batch")
            warnings = [line for line in server.log_text().splitlines() if "warning" in line]
            self.assertEqual([], warnings)
        with start("--workers=2") as server:
            self.assertEqual(alone, ask_all(server, NUM_BESIDE), "with two workers")
            info = json.loads(subprocess.run([BIN / "chorus", "info", f"--server=127.0.0.1:{server.ports['grpc']}", "--json"],
                                             check=True, capture_output=True, text=True).stdout)
            self.assertEqual(("cuda:0", "bfloat16", 2), (info["device"], info["dtype"], info["num_workers"]))
        with start("--cuda_graphs=false") as server:
            self.assertEqual(alone, ask_all(server, NUM_BESIDE), "without graphs")

    def test_memory_that_is_not_there_is_said_at_the_start(self):
        done = subprocess.run([BIN / "chorus-server", f"--model={MODEL}", "--devices=cuda:0", "--kv_cache_bytes=10000GiB"],
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(2, done.returncode, done.stderr)
        self.assertIn("out of memory on cuda:0", done.stderr)
        self.assertIn("--kv_cache_bytes", done.stderr)

    def test_check_says_the_gpu(self):
        done = subprocess.run([BIN / "chorus-server", f"--model={MODEL}", "--devices=cuda:0", "--check", "--listen=127.0.0.1:0",
                               "--metrics_listen="], capture_output=True, text=True, timeout=120)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("devices      cuda:0: as --devices says", done.stdout)
        self.assertIn("MiB are free", done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    arguments, rest = parser.parse_known_args()
    BIN = arguments.bin.resolve()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
