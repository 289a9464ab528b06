"""Runs llama_cpp_reference.py in its own interpreter: writes its questions, finds the settings with
which it is fastest, measures."""

import itertools
import json
import pathlib
import subprocess
import sys

import bench_common as common
import gguf_model

SCRIPT = pathlib.Path(__file__).resolve().parent / "llama_cpp_reference.py"
RUN_SECONDS = 3600
FINALISTS = 2  # settings that go on from tuning: a single disturbed try must not decide
# KV cells as wide as the weights: float16 is llama.cpp's own choice for 16 bits.
KV_OF = {"float32": "float32", "bfloat16": "float16"}


def is_usable(python):
    """Whether the interpreter has llama-cpp-python; says so on stderr if not."""
    if python is None:
        print("llama.cpp is left out: --llama-python names an interpreter with llama-cpp-python",
              file=sys.stderr)
        return False
    try:
        done = subprocess.run([str(python), "-c", "import llama_cpp"], capture_output=True,
                              text=True, timeout=120, check=False)
    except OSError as error:
        raise common.BenchError(f"--llama-python: {error}") from error
    if done.returncode != 0:
        raise common.BenchError(f"{python} cannot import llama_cpp: install llama-cpp-python "
                                f"0.3.36 there, or leave out --llama-python\n{done.stderr}")
    return True


def settings_to_try(job, parallels):
    """Dictionaries of flags. Each sequence its own cells is tried where sequences do not share."""
    tried = [{"parallel": parallel, "ubatch": ubatch, "flash-attention": flash, "cells": "unified"}
             for parallel, ubatch, flash in itertools.product(parallels, (512, 2048),
                                                              ("on", "off"))]
    if job == "parallel":
        tried += [{"parallel": min(parallels), "ubatch": 512, "flash-attention": flash,
                   "cells": "own"} for flash in ("on", "off")]
    return tried


class Peer:
    """llama.cpp at one dtype."""

    def __init__(self, arguments, dtype):
        self._arguments, self._dtype = arguments, dtype
        self._gguf = gguf_model.ensure_gguf(arguments.model, dtype)
        self._finalists = {}  # job -> the fastest settings

    def measure(self, job, work_file):
        """The best of the finalists' runs; the first time, after tuning, with what was "tried"."""
        tried = None if job in self._finalists else self._tune(job, work_file)
        print(f"llama.cpp {self._dtype} {job}", file=sys.stderr, flush=True)
        results = [self._run(job, work_file, settings) for settings in self._finalists[job]]
        best = max(results, key=lambda result: result["questions_per_second"])
        return {**best, "tried": tried} if tried else best

    def _run(self, job, work_file, settings, count=None):
        """The object that the script prints."""
        arguments = self._arguments
        command = [str(arguments.llama_python), str(SCRIPT), f"--gguf={self._gguf}",
                   f"--questions={work_file}", f"--job={job}", f"--threads={arguments.threads}",
                   f"--max-new-tokens={arguments.max_new_tokens}", f"--kv={KV_OF[self._dtype]}",
                   *(f"--{flag}={value}" for flag, value in settings.items())]
        if count is not None:
            command.append(f"--count={count}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS,
                              check=False)
        if done.returncode != 0:
            raise common.BenchError(f"{' '.join(command)} ended with {done.returncode}:\n"
                                    f"{done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def _tune(self, job, work_file):
        """Notes the fastest settings; returns what was tried, [{"settings", "questions_per_second"}].
        A setting that llama.cpp refuses counts as slowest."""
        tried = []
        candidates = settings_to_try(job, self._arguments.llama_parallel)
        progress = common.Progress(f"tuning llama.cpp {self._dtype} {job}", len(candidates))
        for settings in candidates:
            try:
                result = self._run(job, work_file, settings, self._arguments.tune_questions)
                tried.append({"settings": {**settings, "parallel": result["parallel"]},
                              "questions_per_second": result["questions_per_second"]})
            except common.BenchError as error:
                print(f"refused {settings}: {error}", file=sys.stderr)
                tried.append({"settings": settings, "questions_per_second": 0.0})
            progress.step()
        tried.sort(key=lambda entry: -entry["questions_per_second"])
        self._finalists[job] = [entry["settings"] for entry in tried[:FINALISTS]
                                if entry["questions_per_second"] > 0]
        if not self._finalists[job]:
            raise common.BenchError(f"llama.cpp runs {job} with no setting at all")
        return tried
