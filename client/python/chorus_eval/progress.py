"""How far a run is: on a terminal one line redrawn, else a line every ten seconds."""
from __future__ import annotations

import sys
import time

_TERMINAL_SECONDS, _LINE_SECONDS = 0.1, 10.0
_BAR_CELLS = 24


def duration(seconds):
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """Counts to `total`; rate and remaining time by what this process has done itself."""

    def __init__(self, what, total, done=0, stream=None, clock=time.monotonic):
        self._stream = sys.stderr if stream is None else stream
        self._what, self._total, self._done, self._before = what, total, done, done
        self._clock, self._begin = clock, clock()
        self._terminal = self._stream.isatty()
        self._interval = _TERMINAL_SECONDS if self._terminal else _LINE_SECONDS
        self._next = self._begin + self._interval
        self._failed = 0

    def text(self):
        seconds = self._clock() - self._begin
        rate = (self._done - self._before) / seconds if seconds > 0 else 0.0
        left = duration((self._total - self._done) / rate) if rate else "?"
        share = self._done / self._total if self._total else 1.0
        filled = int(_BAR_CELLS * share)
        bar = f"[{'#' * filled}{'.' * (_BAR_CELLS - filled)}] " if self._terminal else ""
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._what} {bar}{self._done}/{self._total} {share:.0%}, {rate:.1f}/s, {left} left{failed}"

    def step(self, failed=False):
        self._done += 1
        self._failed += failed
        if self._clock() >= self._next:
            self._show()

    def _show(self):
        self._next = self._clock() + self._interval
        text = f"\r{self.text()}\x1b[K" if self._terminal else f"{self.text()}\n"
        print(text, end="", file=self._stream, flush=True)

    def note(self, text):
        """A line of its own."""
        clear = "\r\x1b[K" if self._terminal else ""
        print(f"{clear}{text}", file=self._stream, flush=True)

    def finish(self):
        seconds = self._clock() - self._begin
        self.note(f"{self._what}: {self._done}/{self._total} in {duration(seconds)}"
                  + (f", {self._before} of them from before" if self._before else "")
                  + (f", {self._failed} failed" if self._failed else ""))
