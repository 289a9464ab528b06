#!/usr/bin/env python3
"""gpu.sh without a GPU: it runs through on simulated thread blocks, its document says so, and pictures come of it."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "bench" / "gpu.sh"
BUNDLE = None

sys.path.insert(0, str(ROOT / "tests" / "bench"))
import gpu_programs  # noqa: E402
import gpu_report  # noqa: E402
import gpu_run  # noqa: E402
import gpu_server  # noqa: E402
from gpu_memory import HostMemory  # noqa: E402


def gpu_sh(*arguments):
    return subprocess.run([SCRIPT, "--bundle", BUNDLE, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
                          env={"PATH": "/usr/bin:/bin", "GPU_PYTHON": sys.executable}, timeout=400, check=False)


class GpuRunTest(unittest.TestCase):
    def test_runs_through_on_the_host(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "gpu.json"
            done = gpu_sh("--host", "--quick", "--out", out)
            self.assertEqual(done.returncode, 0, done.stderr)
            document = json.loads(out.read_text())
            self.assertEqual(document["device"], "host (simulated)")
            self.assertTrue(document["ok"])
            self.assertTrue(document["kernels"]["mixed"])
            for part in ("kernels", "decode"):
                for case in document[part]["cases"]:
                    self.assertNotIn("target", case, "a simulation's time is no result")
                    for check in case["checks"].values():
                        self.assertTrue(check["determinism"]["alone"] and check["determinism"]["again"])
                        self.assertGreater(check["limit"], check["error"])
            for found in document["model"]["models"].values():
                self.assertEqual(found["device"], "host (simulated)")
                self.assertEqual([engine["graphs"] for engine in found["engines"]], [True, False])
                for engine in found["engines"]:
                    self.assertEqual(engine["warnings"], [], "a plain kernel in place of a fast one")
                    self.assertTrue(all(check["ok"] for check in engine["determinism"]))
                    self.assertEqual({run["method"] for run in engine["runs"]}, {"ATTENTION", "LOGIT_MEAN"})
            self.assertEqual(6, document["first_tokens"]["compared"])
            self.check_server(document["server"])
            self.assertEqual(document["parts_to_come"], [])
            plot = subprocess.run([sys.executable, ROOT / "tests" / "bench" / "gpu_plot.py", out, folder],
                                  capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual(plot.returncode, 0, plot.stderr)
            pictures = [pathlib.Path(line) for line in plot.stdout.splitlines()]
            self.assertEqual([picture.name for picture in pictures],
                             ["gpu_kernels.svg", "gpu_decode_attention.svg", "gpu_model.svg", "gpu_server.svg"])
            self.assertIn("host (simulated)", pictures[0].read_text())

    def check_server(self, server):
        self.assertEqual(server["devices"], "cpu")
        self.assertNotIn("target", server, "a CPU's share of a GPU's roofline is no result")
        self.assertEqual([load["streams"] for load in server["loads"]], [2, 1])
        for load in server["loads"]:
            self.assertEqual(load["requests"], load["streams"])
            self.assertEqual(set(load["modes"]), {"engine", "generate", "many"})
            for mode in load["modes"].values():
                self.assertEqual(mode["rounds"][0]["tokens"], load["streams"] * load["max_new_tokens"])
        two = server["two_devices"]
        self.assertEqual([two[name]["workers"] for name in ("one", "two")], [1, 2])
        self.assertGreater(two["ratio"], 0)

    def test_says_that_there_is_no_gpu(self):
        done = gpu_sh("--device=999")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no GPU can be used here", done.stderr)
        self.assertIn("--host", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_help_teaches(self):
        done = gpu_sh("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("gpu_bundle.sh", "--host", "--only", "sanitizer", "gpu_plot.py"):
            self.assertIn(word, done.stdout)


class StubbornHost:
    """Runs gpu_kernels.py as it would go if one kernel never ended: twice it has to be stopped in it."""
    is_host, is_quick, device = False, False, 0

    def __init__(self, folder):
        self.scratch, self.commands = pathlib.Path(folder), []

    def library(self):
        return "no.so"

    def run(self, command, seconds, silent_seconds):
        self.commands.append(command)
        report = gpu_report.Report(command[command.index("--out") + 1], HostMemory())
        for case in ("mixed", "long", "short"):
            if report.begin("head_dim_64", case, "chorus hopper"):
                return gpu_programs.Ended(gpu_programs.OUT_OF_TIME, "", ["its last words"], "was stopped")
            with report.attempt():
                report.document["cases"].append({"case": case, "heads": "head_dim_64", "checks": {"ampere": {"ok": True}}})
        report.finish()
        return gpu_programs.Ended(1, "", [], "ended with 1")


class ServerHost:
    """A host with GPUs on which server_bench finds 16,000 tokens a second a device."""
    is_host, is_quick, device, folder = False, False, 0, pathlib.Path("build")

    def __init__(self, works=True):
        self.commands, self._works = [], works

    def program(self, name):
        return name

    def run_json(self, name, command, seconds, silent_seconds):
        self.commands.append(command)
        if not self._works:
            return {"ok": False, "error": "ran out of time"}
        flags = dict(word[2:].split("=", 1) for word in command if "=" in word)
        rate = 16000.0 * len(flags["devices"].split(","))
        loads = [{"streams": int(streams), "prompts": 6, "prompt_tokens": 50, "max_new_tokens": 128,
                  "modes": {mode: {"tokens_per_second": rate, "decode_tokens_per_second": 1.25 * rate}
                            for mode in ("engine", "generate")}}
                 for streams in flags["streams"].split(",")]
        return {"ok": True, "step_weight_bytes": 6_430_000_000, "kv_bytes_per_token": 114688, "loads": loads}


class ServerTest(unittest.TestCase):
    COPY_RATE = 4.3e12

    def test_share_of_the_roofline_is_that_of_decoding_through_generate(self):
        document = gpu_server.measure(ServerHost(), self.COPY_RATE, 1, 60)
        # 64 answers of 6 x 50 keys and half of 128.
        step_seconds = (6.43e9 + 64 * 364 * 114688) / self.COPY_RATE
        self.assertAlmostEqual(document["target"]["value"], 20000 / (64 / step_seconds))
        self.assertTrue(document["target"]["met"])
        self.assertEqual(document["two_devices"]["not_run"], "needs two GPUs; here: 1")
        self.assertTrue(document["ok"])

    def test_two_gpus_get_twice_the_streams_of_one(self):
        host = ServerHost()
        two = gpu_server.measure(host, self.COPY_RATE, 2, 60)["two_devices"]
        self.assertEqual(two["target"], {"unit": "times one GPU", "value": 2.0, "must": 1.9, "met": True})
        self.assertIn("--devices=cuda:0", host.commands[1])
        self.assertIn("--devices=cuda:0,cuda:1", host.commands[2])
        self.assertIn("--streams=64", host.commands[1])
        self.assertIn("--streams=128", host.commands[2])

    def test_a_server_that_fails_is_no_target_and_no_exception(self):
        document = gpu_server.measure(ServerHost(works=False), self.COPY_RATE, 2, 60)
        self.assertFalse(document["ok"])
        self.assertFalse(document["two_devices"]["ok"])
        self.assertNotIn("target", document)


class FailureTest(unittest.TestCase):
    def test_kernels_go_on_behind_what_never_ends(self):
        with tempfile.TemporaryDirectory() as folder:
            host = StubbornHost(folder)
            document = gpu_run.kernels(host, "prefill", 200)
        self.assertEqual(len(host.commands), 3)
        self.assertTrue(document["finished"])
        self.assertFalse(document["ok"], "a kernel that never ends is a failure")
        self.assertEqual([failure["case"] for failure in document["failures"]], ["mixed", "long"])
        self.assertEqual(document["failures"][0]["stderr_tail"], ["its last words"])

    def test_an_exception_is_noted_and_the_rest_goes_on(self):
        report = gpu_report.Report(None, HostMemory())
        report.begin("head_dim_64", "a case", "chorus ampere")
        with report.attempt():
            raise ValueError("no such shape")
        self.assertEqual(report.document["failures"], [{"heads": "head_dim_64", "case": "a case", "name": "chorus ampere",
                                                        "error": "ValueError: no such shape", "lost": False}])
        self.assertTrue(report.begin("head_dim_64", "another case", "chorus ampere"))

    def test_what_is_silent_is_stopped_and_its_words_are_kept(self):
        host = gpu_programs.Host(pathlib.Path("none"), is_bundle=False, seconds=60)
        program = "import sys, time; print('half', flush=True); print('begun', file=sys.stderr, flush=True); time.sleep(50)"
        ended = host.run([sys.executable, "-c", program], 40, lambda line: 1 if line == "begun" else 40)
        self.assertEqual((ended.code, ended.stdout, ended.stderr_tail), (gpu_programs.OUT_OF_TIME, "half\n", ["begun"]))
        self.assertIn("nothing happened for 1 s", ended.why)
        killed = host.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], 40)
        self.assertEqual(killed.why, "was ended by SIGSEGV")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, help="build folder with bin/ and lib/")
    known, rest = parser.parse_known_args()
    BUNDLE = pathlib.Path(known.build).resolve()
    unittest.main(argv=[sys.argv[0], *rest])
