"""Programs that gpu_run.py starts: where they lie, what they may take, and what is left of one that ends badly."""

import collections
import dataclasses
import importlib.util
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import sysconfig
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT_OF_TIME = 124
# Of stderr, kept for the document.
TAIL_LINES = 40
LINE_LETTERS = 300


@dataclasses.dataclass
class Ended:
    """`code`: OUT_OF_TIME if it was stopped, `why` then says for what."""
    code: int
    stdout: str
    stderr_tail: list
    why: str

    def failure(self, name):
        return {"ok": False, "error": f"{name} {self.why}", "stderr_tail": self.stderr_tail}


def _library_folders():
    """Those of torch and of NVIDIA's packages beside it."""
    found = importlib.util.find_spec("torch")
    site = pathlib.Path(found.origin).parents[1] if found else pathlib.Path(sysconfig.get_paths()["purelib"])
    return [site / "torch" / "lib", *sorted(site.glob("nvidia/*/lib"))]


def _read(stream, take):
    """All lines, and None behind them."""
    with stream:
        for line in stream:
            take(line)
    take(None)


def _stop(process):
    """With all that it started, compilers for instance."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Host:
    """Runs programs of a build or bundle; `seconds` in all."""

    def __init__(self, folder, is_bundle, seconds):
        self._deadline = time.monotonic() + seconds
        self.folder = folder
        self.environment = dict(os.environ)
        if is_bundle:
            # The driver's own library may be found by what is there already.
            there = filter(None, [os.environ.get("LD_LIBRARY_PATH")])
            self.environment["LD_LIBRARY_PATH"] = ":".join(map(str, [folder / "lib", *_library_folders(), *there]))

    def program(self, name):
        return self.folder / "bin" / name

    def seconds_left(self):
        return self._deadline - time.monotonic()

    def run(self, command, seconds, silent_seconds=None):
        """Ended; stderr goes through as it comes. Stopped after `seconds`, and after silent_seconds(last line) without a
        line on stderr: a kernel that never ends must not take the time of what comes after it."""
        seconds = min(seconds, self.seconds_left())
        if seconds <= 0:
            return Ended(OUT_OF_TIME, "", [], "was not begun: no time was left")
        # Python keeps to its own libraries.
        environment = os.environ if command[0] == sys.executable else self.environment
        try:
            process = subprocess.Popen([str(part) for part in command], cwd=ROOT, env=environment, text=True,
                                       errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0)
        except OSError as error:
            return Ended(127, "", [], f"cannot be started: {error}")
        try:
            return self._wait(process, time.monotonic() + seconds, silent_seconds or (lambda line: seconds))
        finally:
            _stop(process)

    @staticmethod
    def _wait(process, deadline, silent_seconds):
        stdout, tail, lines = [], collections.deque(maxlen=TAIL_LINES), queue.SimpleQueue()
        # Threads that end with their pipes, which what the process left running may hold open.
        readers = [threading.Thread(target=_read, args=arguments, daemon=True)
                   for arguments in ((process.stdout, stdout.append), (process.stderr, lines.put))]
        for reader in readers:
            reader.start()
        why, last_line = None, time.monotonic()
        while why is None:
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                if process.poll() is not None:
                    break
                limit = silent_seconds(tail[-1] if tail else "")
                if time.monotonic() > last_line + limit:
                    why = f"was stopped: nothing happened for {limit:.0f} s"
            else:
                if line is None:
                    break
                sys.stderr.write(line)
                sys.stderr.flush()
                tail.append(line.rstrip()[:LINE_LETTERS])
                last_line = time.monotonic()
            if time.monotonic() > deadline:
                why = "ran out of time"
        if why is None:
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                why = "ran out of time"
        code = OUT_OF_TIME if why else process.returncode
        _stop(process)
        readers[0].join(timeout=5)
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return Ended(code, "".join(line for line in stdout if line), list(tail), why or ended)

    def run_json(self, name, command, seconds, silent_seconds=None):
        """The document that a program prints; or {"ok": False, "error": ..., "stderr_tail": ...}."""
        ended = self.run(command, seconds, silent_seconds)
        try:
            document = json.loads(ended.stdout)
        except json.JSONDecodeError:
            return ended.failure(name)
        document.setdefault("ok", ended.code == 0)
        return document
