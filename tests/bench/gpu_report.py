"""The document of gpu_kernels.py, on disk at every step: a kernel that hangs or breaks the device loses itself and
nothing else. Whoever started the program reads what was under way, notes it as a failure, and starts it again; then
what is there is kept and what failed is left out."""

import contextlib
import json
import os
import sys

EXIT_LOST = 3  # of a program whose device is lost
TIMING = "timing"  # all contenders in turns: if that fails, the case is left out


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class DeviceLost(Exception):
    """No more can be done by this process."""


def read(path):
    """A report's document, or None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def write(path, document):
    """At once or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def note_failure(document, error, is_lost):
    """What was under way failed. `is_lost`: and took the process with it. False: nothing was under way."""
    under_way = document.pop("under_way", None)
    if under_way:
        document["failures"].append({**under_way, "error": error, "lost": is_lost})
    return bool(under_way)


class Report:
    """`path`: None keeps it in memory. A step: heads, case, and the name of a contender or TIMING."""

    def __init__(self, path, memory):
        self._path, self._memory = path, memory
        self.document = (read(path) if path else None) or {"mixed": [], "cases": [], "not_run": [], "failures": []}
        self.document["finished"] = False

    def save(self):
        if self._path:
            write(self._path, self.document)

    def is_excluded(self, heads, case, name):
        """Whether it has cost a process: here, or so often that it is not tried again."""
        lost = [found for found in self.document["failures"] if found["lost"] and found["name"] == name]
        with_heads = [found for found in lost if found["heads"] == heads]
        if name == TIMING or any(found["case"] == case for found in with_heads):
            return any(found["case"] == case for found in with_heads)
        return len(with_heads) >= 2 or len(lost) >= 3

    def begin(self, heads, case, name, is_quiet=False):
        """False: it is not to be begun."""
        if self.is_excluded(heads, case, name):
            return False
        self.document["under_way"] = {"heads": heads, "case": case, "name": name}
        self.save()
        if not is_quiet:
            print(f"{heads}, {case}: {name}", file=sys.stderr, flush=True)
        return True

    @contextlib.contextmanager
    def attempt(self, is_lost=False):
        """Around what was begun: what it raises is noted, and raised no further unless the device is lost with it, or
        `is_lost` says so."""
        try:
            yield
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, others are still to be measured
            self.check_device(error, is_lost)
            note_failure(self.document, first_line(error), is_lost=False)
        self.document.pop("under_way", None)

    def check_device(self, error, is_lost=False):
        """Raises DeviceLost, and notes what was under way, if `error` broke the device."""
        if is_lost or not self._memory.is_alive():
            note_failure(self.document, first_line(error), is_lost=True)
            self.save()
            raise DeviceLost(first_line(error)) from error

    def finish(self):
        document = self.document
        checks = document["mixed"] + [check for case in document["cases"] for check in case["checks"].values()]
        # Others may fail or be missing; ours and what holds all of them may not.
        ours = [found for found in document["failures"] if found["name"] == TIMING or found["name"].startswith("chorus")]
        document["ok"] = bool(checks) and all(check["ok"] for check in checks) and not document["not_run"] and not ours
        document["finished"] = True
        document.pop("under_way", None)
        self.save()
