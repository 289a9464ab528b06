"""When a failed call is asked again, and after how long."""
from __future__ import annotations

import dataclasses
import random
import time

RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Calls that end with UNAVAILABLE or RESOURCE_EXHAUSTED are asked again, up to `max_attempts`
    times in all. The wait grows from `initial_backoff` by `multiplier` up to `max_backoff` seconds,
    give or take `jitter` of it; a RetryInfo of the server is waited for at least. Never beyond the
    call's deadline. `RetryPolicy(max_attempts=1)` asks once."""
    max_attempts: int = 5
    initial_backoff: float = 0.2
    max_backoff: float = 10.0
    multiplier: float = 2.0
    jitter: float = 0.2

    def __post_init__(self):
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts: {self.max_attempts} is not valid: at least 1")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter: {self.jitter} is not valid: in [0, 1)")
        if self.initial_backoff < 0 or self.max_backoff < 0 or self.multiplier < 1:
            raise ValueError("backoff: seconds may not be negative, multiplier not below 1")


class Attempts:
    """The attempts of one call, counted."""

    def __init__(self, policy, deadline=None, clock=time.monotonic, uniform=random.uniform):
        """`deadline`: seconds for all attempts and waits together; None: no end."""
        self._policy, self._clock, self._uniform = policy, clock, uniform
        self._end = None if deadline is None else clock() + deadline
        self._failed = 0

    def remaining(self):
        """Seconds until the deadline, None for no end; what the next attempt may take."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    def progress(self):
        """Something was achieved: counting starts again."""
        self._failed = 0

    def wait_after(self, error):
        """Seconds to wait before asking again; None: `error` is final."""
        self._failed += 1
        if error.code not in RETRIED or self._failed >= self._policy.max_attempts:
            return None
        policy = self._policy
        wait = min(policy.max_backoff,
                   policy.initial_backoff * policy.multiplier ** (self._failed - 1))
        wait *= self._uniform(1 - policy.jitter, 1 + policy.jitter)
        wait = max(wait, error.retry_after or 0.0)
        remaining = self.remaining()
        return None if remaining is not None and wait >= remaining else wait
