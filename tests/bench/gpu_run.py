#!/usr/bin/env python3
"""Measures Chorus on a GPU: kernels against PyTorch's, decode against the memory's speed, whole models, and the tests
that need a GPU. One JSON document; under ten minutes; progress on stderr.

    tests/bench/gpu.sh --out gpu.json                    on a GPU host with this repository built
    tests/bench/gpu_bundle.sh                            elsewhere: collects what the next line needs
    tests/bench/gpu.sh --bundle build/gpu-bundle.tar.gz  on a GPU host without Debian's libraries
    tests/bench/gpu.sh --only kernels --only decode      some parts
    tests/bench/gpu.sh --host                            without a GPU: kernels and a tiny model on simulated thread
                                                         blocks; shows that script and results are right, and its
                                                         times mean nothing
    python3 tests/bench/gpu_plot.py gpu.json PICTURES    pictures of the document

Parts: kernels (segment attention of prompts, against every SDPA back end, FlexAttention and variable-length flash
attention, where they can be imported), decode (attention of generated rows), model (Llama-3.2-3B and Llama-3.1-8B
shapes, random weights), tests (those labelled gpu), sanitizer (compute-sanitizer over them, where it is found).
Needs a Python with torch (2.11, CUDA 13) and numpy; gpu.sh takes python3, or what GPU_PYTHON names. Exit code 1: no
GPU, a part failed, or a result is wrong.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time

from gpu_memory import open_memory

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
PARTS = ("kernels", "decode", "model", "tests", "sanitizer")
# All in all; what a part has not begun by then is left out and named, and the exit code is 1.
TOTAL_SECONDS = 570
# No case is begun after so many; the last one may take as long again.
CASE_SECONDS = {"prefill": 200, "decode": 45}
TESTS = ("gpu_attention_test", "gpu_elementwise_test")
SANITIZERS = ("memcheck", "racecheck", "synccheck")
# A few small launches: the tools slow a kernel down a hundredfold.
SANITIZED_TESTS = "*FuzzedSteps*:*WithoutKeys*"
MODELS = ("llama-3.2-3b", "llama-3.1-8b")
# Of kernels.md: tokens a second at batch 1, and the share of the roofline at batch 64.
MODEL_TARGETS = {"llama-3.2-3b": {1: 500}, "llama-3.1-8b": {1: 230}}


def progress(text):
    print(f"gpu.sh: {text}", file=sys.stderr, flush=True)


class Host:
    """Where programs and libraries lie, and how they are run."""

    def __init__(self, arguments):
        self.is_host, self.is_quick, self.device = arguments.host, arguments.quick, arguments.device
        self._deadline = time.monotonic() + TOTAL_SECONDS
        self.folder = arguments.bundle or ROOT / "build" / "release"
        site = pathlib.Path(sysconfig.get_paths()["purelib"])
        libraries = [self.folder / "lib", site / "torch" / "lib", *sorted(site.glob("nvidia/*/lib"))]
        self.environment = dict(os.environ)
        if arguments.bundle:
            self.environment["LD_LIBRARY_PATH"] = ":".join(str(path) for path in libraries)

    def library(self):
        return self.folder / "lib" / f"libchorus_kernels_abi{'_host' if self.is_host else ''}.so"

    def program(self, name):
        return self.folder / "bin" / name

    def run(self, command, seconds=TOTAL_SECONDS):
        """(exit code, stdout); stderr goes through. Exit code 124: out of time."""
        seconds = min(seconds, self._deadline - time.monotonic())
        if seconds <= 0:
            return 124, ""
        # Python keeps to its own libraries.
        environment = os.environ if command[0] == sys.executable else self.environment
        try:
            done = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, text=True,
                                  stdout=subprocess.PIPE, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return 124, ""
        except OSError as error:
            return 127, str(error)
        return done.returncode, done.stdout

    def run_json(self, command):
        """The document that a program prints, or {"ok": False, "error": ...}."""
        code, text = self.run(command)
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            name = next(pathlib.Path(part).name for part in command if part != sys.executable)
            why = "ran out of time" if code == 124 else f"ended with {code} and printed no JSON"
            return {"ok": False, "error": f"{name} {why}"}


def kernels(host, only):
    command = [sys.executable, HERE / "gpu_kernels.py", "--library", host.library(), "--only", only, "--device", host.device,
               "--seconds", CASE_SECONDS[only]]
    return host.run_json(command + ["--host"] * host.is_host + ["--quick"] * host.is_quick)


def model_commands(host):
    program = host.program("gpu_model_bench")
    if host.is_host:
        small = ["--batches=1,2", "--prompt_tokens=6", "--new_tokens=4", "--kv_cache_mebibytes=4", "--max_step_rows=64"]
        # Random weights, and heads of 64, which the fast kernels take.
        yield "tiny", [program, "--device=host", "--model=tests/golden/models/tiny_mqa", *small]
        return
    for model in MODELS[:1] if host.is_quick else MODELS:
        yield model, [program, f"--device=cuda:{host.device}", f"--model={model}"]


def add_rooflines(document, copy_rate):
    """Shares of the time that reading weights and keys once takes at the measured copy rate."""
    for engine in document.get("engines", ()):
        for run in engine["runs"]:
            step_bytes = engine["step_weight_bytes"] + run["keys_a_step"] * engine["kv_bytes_per_token"]
            roofline = run["batch"] * copy_rate / step_bytes
            run["roofline_tokens_per_second"] = roofline
            run["share_of_roofline"] = run["decode_tokens_per_second"] / roofline
            target = MODEL_TARGETS.get(engine["model"], {}).get(run["batch"])
            if target and run["method"] == "ATTENTION":
                run["target"] = {"tokens_per_second": target, "met": run["decode_tokens_per_second"] >= target}
        fused, ensemble = ({run["batch"]: run["decode_tokens_per_second"] for run in engine["runs"]
                            if run["method"] == method} for method in ("ATTENTION", "LOGIT_MEAN"))
        engine["fused_times_ensemble"] = {str(batch): fused[batch] / ensemble[batch] for batch in fused
                                          if ensemble.get(batch)}


def model(host, copy_rate):
    document = {"models": {}}
    for name, command in model_commands(host):
        progress(f"model: {name}")
        found = host.run_json(command)
        if copy_rate:
            add_rooflines(found, copy_rate)
        document["models"][name] = found
    document["ok"] = all(found.get("ok", False) for found in document["models"].values())
    return document


def tests(host):
    document = {}
    for name in TESTS:
        progress(f"tests: {name}")
        begin = time.monotonic()
        code, text = host.run([host.program(name)])
        lines = text.splitlines()
        document[name] = {"exit_code": code, "seconds": time.monotonic() - begin,
                          "passed": sum(line.startswith("[       OK ]") for line in lines),
                          "skipped": sum(line.startswith("[  SKIPPED ]") and "ms)" in line for line in lines),
                          "failed": [line for line in lines if line.startswith("[  FAILED  ]")][:20]}
    # On a GPU, tests that were all skipped show nothing.
    document["ok"] = all(found["exit_code"] == 0 and (host.is_host or found["passed"]) for found in document.values())
    return document


def find_sanitizer():
    found = shutil.which("compute-sanitizer")
    usual = pathlib.Path("/usr/local/cuda/bin/compute-sanitizer")
    return found or (str(usual) if usual.is_file() else None)


def sanitizer(host):
    tool = find_sanitizer()
    if host.is_host or tool is None:
        return {"ok": True, "not_run": "needs a GPU" if host.is_host else "compute-sanitizer is not on PATH"}
    document = {"ok": True, "tool": tool}
    for check in SANITIZERS:
        progress(f"sanitizer: {check}")
        code, text = host.run([tool, "--tool", check, "--error-exitcode", "9", host.program(TESTS[0]),
                               f"--gtest_filter={SANITIZED_TESTS}"], seconds=150)
        summary = [line for line in text.splitlines() if "SUMMARY" in line]
        document[check] = {"exit_code": code, "summary": summary[-1] if summary else text[-300:]}
        # 124: out of time says nothing about the kernels; it is shown, and is no failure.
        document["ok"] = document["ok"] and code in (0, 124)
    return document


def nvidia_smi():
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
    try:
        done = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], capture_output=True,
                              text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [dict(zip(fields.split(","), (part.strip() for part in line.split(",")), strict=False))
            for line in done.stdout.splitlines()]


def run(host, memory, parts):
    document = {"device": memory.name, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "quick": host.is_quick}
    if memory.is_gpu:
        document.update(properties=memory.properties, nvidia_smi=nvidia_smi(),
                        copy_bytes_per_second=memory.copy_bytes_per_second())
        memory.release()
    copy_rate = document.get("copy_bytes_per_second")
    work = {"kernels": lambda: kernels(host, "prefill"), "decode": lambda: kernels(host, "decode"),
            "model": lambda: model(host, copy_rate), "tests": lambda: tests(host), "sanitizer": lambda: sanitizer(host)}
    for part in parts:
        progress(part)
        begin = time.monotonic()
        document[part] = work[part]()
        document[part]["seconds"] = round(time.monotonic() - begin, 1)
    document["ok"] = all(document[part].get("ok", False) for part in parts)
    return document


def run_all(arguments, memory):
    host = Host(arguments)
    if not host.library().is_file():
        print(f"error: {host.library()} is not there: build with scripts/build.sh (CHORUS_CUDA=1 for a GPU), or name a "
              "bundle of tests/bench/gpu_bundle.sh with --bundle", file=sys.stderr)
        return 1
    document = run(host, memory, [part for part in PARTS if not arguments.only or part in arguments.only])
    text = json.dumps(document, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
        progress(f"wrote {arguments.out}")
    else:
        sys.stdout.write(text)
    return 0 if document["ok"] else 1


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/gpu.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", action="store_true", help="no GPU: simulated thread blocks, tiny shapes")
    parser.add_argument("--quick", action="store_true", help="one head shape and one model")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given several times")
    parser.add_argument("--bundle", type=pathlib.Path, help="a file of gpu_bundle.sh, or a folder with bin/ and lib/, instead of build/release")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU (default 0)")
    parser.add_argument("--out", type=pathlib.Path, help="the document goes here instead of stdout")
    arguments = parser.parse_args()
    memory, why = open_memory(arguments.host, arguments.device)
    if memory is None:
        print(f"error: no GPU can be used here: {why}. Nothing was measured. --host runs everything through on "
              "simulated thread blocks.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="chorus-gpu-") as folder:
        if arguments.bundle and arguments.bundle.is_file():
            progress(f"unpacking {arguments.bundle}")
            with tarfile.open(arguments.bundle) as archive:
                archive.extractall(folder, filter="data")
            arguments.bundle = pathlib.Path(folder)
        return run_all(arguments, memory)


if __name__ == "__main__":
    sys.exit(main())
