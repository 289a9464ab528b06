#!/usr/bin/env python3
"""Measures Chorus on a GPU: kernels against PyTorch's, decode against the memory's speed, whole models, the server, and
the tests that need a GPU. One JSON document, written after every part; under ten minutes; progress on stderr.

    tests/bench/gpu.sh --out gpu.json                    on a GPU host with this repository built
    tests/bench/gpu_bundle.sh                            elsewhere: collects what the next line needs
    tests/bench/gpu.sh --bundle build/gpu-bundle.tar.gz  on a GPU host without Debian's libraries
    tests/bench/gpu.sh --only kernels --only decode      some parts
    tests/bench/gpu.sh --host                            without a GPU: kernels and a tiny model on simulated thread
                                                         blocks; shows that script and results are right, and its
                                                         times mean nothing
    python3 tests/bench/gpu_plot.py gpu.json PICTURES    pictures of the document

Parts, in this order: kernels (segment attention of prompts, against every SDPA back end, FlexAttention and
variable-length flash attention, where they can be imported), decode (attention of generated rows), tests (those labelled
gpu), first_tokens (a real model's, against float32 on the CPU; --model names it), model (Llama-3.2-3B and Llama-3.1-8B
shapes, random weights), server (the former through gRPC, and on two GPUs where there are two), sanitizer
(compute-sanitizer over the tests, where it is found).
Needs a Python with torch (2.11, CUDA 13) and numpy; gpu.sh takes python3, or what GPU_PYTHON names. Exit code 1: no
GPU, a part failed, or a result is wrong.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

import gpu_report
import gpu_server
from gpu_memory import open_memory
from gpu_programs import OUT_OF_TIME, ROOT, Host
from gpu_rooflines import add_rooflines

HERE = pathlib.Path(__file__).resolve().parent
# All in all; what a part has not begun by then is left out and named, and the exit code is 1.
TOTAL_SECONDS = 550
# At most, of each part, in the order of their worth; together less than TOTAL_SECONDS but for the last, which takes what
# is left.
PART_SECONDS = {"kernels": 190, "decode": 55, "tests": 65, "first_tokens": 60, "model": 105, "server": 70,
                "sanitizer": 150}
PARTS = tuple(PART_SECONDS)
# No case is begun in the last part of a part's time.
LAST_CASE_SECONDS = 20
KERNELS_STARTS = 10
TESTS = ("gpu_attention_test", "gpu_elementwise_test", "gpu_plain_attention_test", "gpu_probes_test", "gpu_sampling_test",
         "gpu_model_runner_test")
TEST_SECONDS = 30
SANITIZERS = ("memcheck", "racecheck", "synccheck")
# A few small launches: the tools slow a kernel down a hundredfold.
SANITIZED_TESTS = "*FuzzedSteps*:*WithoutKeys*"
MODELS = ("llama-3.2-3b", "llama-3.1-8b")


def kernels_silent_seconds(line):
    """A kernel that never ends is stopped after so many; before it Python loads torch, and FlexAttention a compiler."""
    return 90 if not line or "FlexAttention" in line else 35


def model_silent_seconds(_):
    return 90  # loading; then every run is a line


def progress(text):
    print(f"gpu.sh: {text}", file=sys.stderr, flush=True)


class Bench(Host):
    """What is measured, and where."""

    def __init__(self, arguments, scratch):
        super().__init__(arguments.bundle or ROOT / "build" / "release", bool(arguments.bundle), TOTAL_SECONDS)
        self.is_host, self.is_quick, self.device = arguments.host, arguments.quick, arguments.device
        self.model, self.scratch = arguments.model, scratch

    def library(self):
        return self.folder / "lib" / f"libchorus_kernels_abi{'_host' if self.is_host else ''}.so"


def kernels(host, only, seconds):
    """gpu_kernels.py, started again behind what broke the device or never ended."""
    path, end = host.scratch / f"{only}.json", time.monotonic() + seconds
    command = [sys.executable, HERE / "gpu_kernels.py", "--library", host.library(), "--only", only, "--device", host.device,
               "--out", path, *["--host"] * host.is_host, *["--quick"] * host.is_quick]
    for _ in range(KERNELS_STARTS):
        left = end - time.monotonic()
        ended = host.run([*command, "--seconds", max(0.0, left - LAST_CASE_SECONDS)], left,
                         None if host.is_host else kernels_silent_seconds)  # a simulation ends, if late
        document = gpu_report.read(path)
        if document is None:
            return ended.failure("gpu_kernels.py")
        if document["finished"]:
            return document
        has_culprit = gpu_report.note_failure(document, ended.why, is_lost=True)
        if document["failures"]:
            document["failures"][-1]["stderr_tail"] = ended.stderr_tail[-8:]
        gpu_report.write(path, document)
        if not has_culprit and ended.code != gpu_report.EXIT_LOST or end - time.monotonic() < LAST_CASE_SECONDS:
            break
        progress(f"kernels: {ended.why}; on behind it")
    return {**document, **ended.failure("gpu_kernels.py")}


def model_commands(host):
    program = host.program("gpu_model_bench")
    if host.is_host:
        small = ["--batches=1,2", "--prompt_tokens=6", "--new_tokens=4", "--kv_cache_mebibytes=4", "--max_step_rows=64"]
        # Random weights, and heads of 64, which the fast kernels take.
        yield "tiny", [program, "--device=host", "--model=tests/golden/models/tiny_mqa", *small]
        return
    for model in MODELS[:1] if host.is_quick else MODELS:
        yield model, [program, f"--device=cuda:{host.device}", f"--model={model}", f"--threads={os.cpu_count()}"]


def model(host, copy_rate, seconds):
    document, end = {"models": {}}, time.monotonic() + seconds
    for name, command in model_commands(host):
        progress(f"model: {name}")
        found = host.run_json("gpu_model_bench", command, end - time.monotonic(), model_silent_seconds)
        if copy_rate:
            add_rooflines(found, copy_rate)
        document["models"][name] = found
    document["ok"] = all(found.get("ok", False) for found in document["models"].values())
    return document


def tests(host, seconds):
    document, end = {}, time.monotonic() + seconds
    for name in TESTS:
        progress(f"tests: {name}")
        begin = time.monotonic()
        ended = host.run([host.program(name)], min(TEST_SECONDS, end - begin))
        lines = ended.stdout.splitlines()
        document[name] = {"exit_code": ended.code, "why": ended.why, "seconds": time.monotonic() - begin,
                          "passed": sum(line.startswith("[       OK ]") for line in lines),
                          "skipped": sum(line.startswith("[  SKIPPED ]") and "ms)" in line for line in lines),
                          "failed": [line for line in lines if line.startswith("[  FAILED  ]")][:20]}
        if ended.code != 0:  # the last words: what failed, or was under way
            document[name]["stdout_tail"] = lines[-40:]
            document[name]["stderr_tail"] = ended.stderr_tail
    # On a GPU, tests that were all skipped show nothing.
    document["ok"] = all(found["exit_code"] == 0 and (host.is_host or found["passed"]) for found in document.values())
    return document


def first_tokens(host, seconds):
    if not (host.model / "model.safetensors").is_file():
        return {"ok": True, "not_run": f"there is no model at {host.model}: name one with --model"}
    command = [sys.executable, ROOT / "tests" / "golden" / "gpu_first_tokens_test.py", "--bin", host.folder / "bin",
               "--model", host.model, "--library_path", host.environment.get("LD_LIBRARY_PATH", ""), "--json"]
    # Without a GPU: bfloat16 on the CPU, and a few questions.
    command += ["--devices", "cpu", "--count", 3] if host.is_host else ["--devices", f"cuda:{host.device}"]
    return host.run_json("gpu_first_tokens_test.py", command, seconds)


def find_sanitizer():
    found = shutil.which("compute-sanitizer")
    usual = pathlib.Path("/usr/local/cuda/bin/compute-sanitizer")
    return found or (str(usual) if usual.is_file() else None)


def sanitizer(host, seconds):
    tool = find_sanitizer()
    if host.is_host or tool is None:
        return {"ok": True, "not_run": "needs a GPU" if host.is_host else "compute-sanitizer is not on PATH"}
    document = {"ok": True, "tool": tool}
    end = time.monotonic() + min(seconds, host.seconds_left())
    for index, check in enumerate(SANITIZERS):
        progress(f"sanitizer: {check}")
        left = (end - time.monotonic()) / (len(SANITIZERS) - index)
        ended = host.run([tool, "--tool", check, "--error-exitcode", "9", host.program(TESTS[0]),
                          f"--gtest_filter={SANITIZED_TESTS}"], left)
        summary = [line for line in ended.stdout.splitlines() if "SUMMARY" in line]
        document[check] = {"exit_code": ended.code, "why": ended.why,
                           "summary": summary[-1] if summary else ended.stdout[-300:], "stderr_tail": ended.stderr_tail[-5:]}
        # Out of time, or a tool that cannot work here, says nothing about the kernels; it is shown, and is no failure.
        document["ok"] = document["ok"] and (ended.code in (0, OUT_OF_TIME) or not summary)
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


def run(host, memory, parts, save):
    """The document; `save` takes it before the first and after every part."""
    document = {"device": memory.name, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "quick": host.is_quick,
                "ok": False, "parts_to_come": list(parts)}
    if memory.is_gpu:
        document.update(properties=memory.properties, nvidia_smi=nvidia_smi(),
                        copy_bytes_per_second=memory.copy_bytes_per_second())
        memory.release()
    copy_rate = document.get("copy_bytes_per_second")
    work = {"kernels": lambda seconds: kernels(host, "prefill", seconds),
            "decode": lambda seconds: kernels(host, "decode", seconds),
            "tests": lambda seconds: tests(host, seconds),
            "first_tokens": lambda seconds: first_tokens(host, seconds), "model": lambda seconds: model(host, copy_rate, seconds),
            "server": lambda seconds: gpu_server.measure(host, copy_rate, memory.num_devices, seconds),
            "sanitizer": lambda seconds: sanitizer(host, seconds)}
    save(document)
    for part in parts:
        progress(part)
        begin = time.monotonic()
        try:
            document[part] = work[part](PART_SECONDS[part])
        except Exception as error:  # noqa: BLE001 - the others are still to be measured
            document[part] = {"ok": False, "error": gpu_report.first_line(error)}
        document[part]["seconds"] = round(time.monotonic() - begin, 1)
        document["parts_to_come"].remove(part)
        save(document)
    document["ok"] = all(document[part].get("ok", False) for part in parts)
    save(document)
    return document


def run_all(arguments, memory, scratch):
    host = Bench(arguments, scratch)
    if not host.library().is_file():
        print(f"error: {host.library()} is not there: build with scripts/build.sh (CHORUS_CUDA=1 for a GPU), or name a "
              "bundle of tests/bench/gpu_bundle.sh with --bundle", file=sys.stderr)
        return 1

    def save(document):
        if arguments.out:
            gpu_report.write(arguments.out, document)
    document = run(host, memory, [part for part in PARTS if not arguments.only or part in arguments.only], save)
    if arguments.out:
        progress(f"wrote {arguments.out}")
    else:
        json.dump(document, sys.stdout, indent=1)
        print()
    return 0 if document["ok"] else 1


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/gpu.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", action="store_true", help="no GPU: simulated thread blocks, tiny shapes")
    parser.add_argument("--quick", action="store_true", help="one head shape and one model")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given several times")
    parser.add_argument("--bundle", type=pathlib.Path, 
                        help="a file of gpu_bundle.sh, or a folder with bin/ and lib/, instead of build/release")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models" / "smollm2-135m-instruct",
                        help="folder of a model for first_tokens")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU (default 0)")
    parser.add_argument("--out", type=pathlib.Path, help="the document goes here instead of stdout, after every part")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, too
    memory, why = open_memory(arguments.host, arguments.device)
    if memory is None:
        print(f"error: no GPU can be used here: {why}. Nothing was measured. --host runs everything through on "
              "simulated thread blocks.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="chorus-gpu-") as folder:
        scratch = pathlib.Path(folder)
        if arguments.bundle and arguments.bundle.is_file():
            progress(f"unpacking {arguments.bundle}")
            with tarfile.open(arguments.bundle) as archive:
                archive.extractall(folder, filter="data")
            arguments.bundle = scratch
        return run_all(arguments, memory, scratch)


if __name__ == "__main__":
    sys.exit(main())
