#!/usr/bin/env python3
"""--devices: a CPU server loads nothing of the CUDA side, and a GPU that cannot be had is explained. Needs no GPU.

    .venv/bin/python tests/e2e/devices_test.py --bin build/release/bin [--cuda_libraries SITE_PACKAGES]

--cuda_libraries: site-packages with the torch wheel's dependencies, where .venv has only the wheel itself.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import unittest

from tiny_server import MODEL, ROOT, TinyServer

GPU_LIBRARIES = ("libchorus_cuda", "libtorch_cuda", "libc10_cuda", "libcublas", "libcudnn", "libnccl", "libcuda.so")
HAS_DRIVER = pathlib.Path("/proc/driver/nvidia").exists()
MISSING_LIBRARY = "cannot open shared object file"


def site_packages():
    return next((ROOT / ".venv" / "lib").glob("python3*/site-packages"))


def has_cuda_libraries(site):
    return (site / "nvidia" / "cudnn").is_dir()


def run(*flags, **environment):
    """chorus-server, which must end by itself: with code 2 and one line."""
    done = subprocess.run([BIN / "chorus-server", f"--model={MODEL}", "--listen=127.0.0.1:0", "--metrics_listen=", *flags],
                          capture_output=True, text=True, timeout=120, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


class CpuTest(unittest.TestCase):
    def check_maps(self, server):
        maps = pathlib.Path(f"/proc/{server.process.pid}/maps").read_text()
        self.assertIn("libtorch_cpu", maps)
        self.assertEqual([], [name for name in GPU_LIBRARIES if name in maps])

    def test_a_cpu_server_loads_no_library_of_cuda(self):
        with TinyServer(BIN, "--devices=cpu") as server:
            self.check_maps(server)
            self.assertEqual("cpu", server.events("devices")[0]["devices"])

    @unittest.skipIf(HAS_DRIVER, "this machine has an NVIDIA driver")
    def test_auto_is_the_cpu_without_a_driver_and_says_why(self):
        with TinyServer(BIN) as server:
            self.check_maps(server)
            event = server.events("devices")[0]
            self.assertEqual("cpu", event["devices"])
            self.assertRegex(event["why"], "no NVIDIA driver|no CUDA side")
            self.assertEqual("info", event["level"])

    def test_check_says_the_devices(self):
        code, output, errors = run("--devices=cpu", "--kv_cache_bytes=1MiB", "--check")
        self.assertEqual(0, code, errors)
        self.assertIn("devices      cpu: as --devices says", output)


class ModuleTest(unittest.TestCase):
    """The CUDA side on a machine that cannot run it."""

    def setUp(self):
        if not (BIN.parent / "lib" / "libchorus_cuda.so").exists():
            self.skipTest("this build has no CUDA side")

    def check_refused(self, needles, **environment):
        code, _, errors = run("--devices=cuda:0", **environment)
        self.assertEqual(2, code, errors)
        self.assertEqual(1, errors.count("\n"), errors)
        for needle in needles:
            self.assertIn(needle, errors)

    def test_a_missing_library_is_named(self):
        if has_cuda_libraries(site_packages()):
            self.skipTest("LibTorch's CUDA libraries are all here")
        self.check_refused(["--devices=cuda:0", "libchorus_cuda.so", MISSING_LIBRARY, "pip install torch"])

    @unittest.skipIf(HAS_DRIVER, "this machine has an NVIDIA driver")
    def test_a_missing_driver_is_named(self):
        site = CUDA_LIBRARIES or site_packages()
        if not has_cuda_libraries(site):
            self.skipTest("LibTorch's CUDA libraries are not here: CHORUS_CUDA=1 scripts/setup.sh, or --cuda_libraries")
        folders = ":".join(str(folder) for folder in (site / "nvidia").glob("*/lib"))
        self.check_refused(["--devices=cuda:0", "no CUDA device", "no NVIDIA driver"], LD_LIBRARY_PATH=folders)

    def test_a_named_file_is_the_one_that_is_opened(self):
        self.check_refused(["there is no no/such/file.so", "CHORUS_CUDA=1"], CHORUS_CUDA_MODULE="no/such/file.so")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--cuda_libraries", type=pathlib.Path)
    arguments, rest = parser.parse_known_args()
    BIN, CUDA_LIBRARIES = arguments.bin.resolve(), arguments.cuda_libraries
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
