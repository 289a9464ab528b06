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


def gpu_sh(*arguments):
    return subprocess.run([SCRIPT, "--bundle", BUNDLE, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
                          env={"PATH": "/usr/bin:/bin", "GPU_PYTHON": sys.executable}, timeout=120, check=False)


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
            plot = subprocess.run([sys.executable, ROOT / "tests" / "bench" / "gpu_plot.py", out, folder],
                                  capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual(plot.returncode, 0, plot.stderr)
            pictures = [pathlib.Path(line) for line in plot.stdout.splitlines()]
            self.assertEqual([picture.name for picture in pictures],
                             ["gpu_kernels.svg", "gpu_decode_attention.svg", "gpu_model.svg"])
            self.assertIn("host (simulated)", pictures[0].read_text())

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


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, help="build folder with bin/ and lib/")
    known, rest = parser.parse_known_args()
    BUNDLE = pathlib.Path(known.build).resolve()
    unittest.main(argv=[sys.argv[0], *rest])
