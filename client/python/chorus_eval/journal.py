"""Answers as they come, on disk: one JSON line an answer, on disk before it counts. A killed run goes
on from here.

A line is {"request": KEY, "outcome": {...}}; KEY is a digest of all that the answer depends on, so an
answer serves exactly the request it was given for, whatever options a later run has."""
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib

from chorus_client.convert import to_message
from google.protobuf import json_format


class JournalError(Exception):
    pass


def request_key(request):
    """A digest of a GenerateRequest: the same for the same request, on any machine."""
    text = json_format.MessageToJson(to_message(request), indent=None, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Journal:
    """One process at a time writes it; a second one is refused by name."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self._file = open(self.path, "a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise JournalError(f"{self.path}: another run writes it") from None
        self._outcomes = {}
        try:
            self._load()
        except JournalError:
            self._file.close()
            raise

    def _load(self):
        self._file.seek(0)
        good = 0
        lines = self._file.read().split(b"\n")
        for number, line in enumerate(lines, 1):
            torn = number == len(lines)  # what follows the last newline: empty, or cut off by a kill
            if torn:
                break
            try:
                record = json.loads(line)
                self._outcomes[record["request"]] = record["outcome"]
            except (ValueError, KeyError, TypeError):
                # A machine that lost power may leave a last line of zeros.
                if number == len(lines) - 1 and not lines[-1]:
                    break
                raise JournalError(f"{self.path}:{number}: is damaged; remove that line, and its "
                                   "answer is asked again") from None
            good += len(line) + 1
        self._file.truncate(good)
        self._file.seek(0, os.SEEK_END)

    def __len__(self):
        return len(self._outcomes)

    def get(self, key):
        return self._outcomes.get(key)

    def add(self, key, outcome):
        line = json.dumps({"request": key, "outcome": outcome}, ensure_ascii=False, sort_keys=True)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._outcomes[key] = outcome

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
