"""A mask as rows that share their key intervals: MaskRun of the protocol, RowIntervals of core."""
import dataclasses
import typing

import numpy as np

from chorus_plot.errors import check


class TokenRange(typing.NamedTuple):
    """[begin, end)."""
    begin: int
    end: int


class MaskRun(typing.NamedTuple):
    """Rows that share their key intervals: row q sees the keys k <= q of them."""
    rows: TokenRange
    keys: tuple  # of TokenRange, ascending and disjoint


@dataclasses.dataclass(frozen=True)
class MaskRuns:
    """The mask of `length` rows. Rows in no run see nothing."""
    runs: tuple
    length: int

    def __post_init__(self):
        before = 0
        for index, run in enumerate(self.runs):
            check(before <= run.rows.begin <= run.rows.end <= self.length,
                  f"mask_runs[{index}].rows is [{run.rows.begin}, {run.rows.end}); it must lie in "
                  f"[{before}, {self.length})")
            before = run.rows.end
            key = 0
            for begin, end in run.keys:
                check(key <= begin <= end <= self.length,
                      f"mask_runs[{index}].keys has [{begin}, {end}); it must lie in "
                      f"[{key}, {self.length})")
                key = end

    def dense(self, queries, keys):
        """May queries[i] attend to keys[j]? Boolean [queries, keys]; both in [0, length)."""
        queries, keys = np.asarray(queries), np.asarray(keys)
        allowed = np.zeros((len(queries), len(keys)), dtype=bool)
        for run in self.runs:
            rows = np.flatnonzero((queries >= run.rows.begin) & (queries < run.rows.end))
            if not len(rows):
                continue
            inside = np.zeros(len(keys), dtype=bool)
            for begin, end in run.keys:
                inside |= (keys >= begin) & (keys < end)
            allowed[rows] = inside & (keys <= queries[rows, None])
        return allowed

    def allowed(self):
        """Number of allowed (query, key) pairs of the whole mask, without making it."""
        return sum(_pairs(run.rows, keys) for run in self.runs for keys in run.keys)

    def total(self):
        return self.length * self.length

    def fully_masked_rows(self):
        """Ranges of rows that see nothing, merged where they touch."""
        ranges, at = [], 0
        for run in self.runs:
            first = min((begin for begin, end in run.keys if begin < end), default=run.rows.end)
            begin = min(max(first, run.rows.begin), run.rows.end)  # the first row that sees a key
            if at < begin:
                ranges.append(TokenRange(at, begin))
            at = run.rows.end if begin < run.rows.end else max(at, begin)
        if at < self.length:
            ranges.append(TokenRange(at, self.length))
        return _merged(ranges)


def _pairs(rows, keys):
    """Pairs k <= q of a rectangle: the sum over its rows q of clamp(q + 1 - keys.begin, 0, n)."""
    def up_to(row):  # sum over q < row
        short = min(max(row - keys.begin, 0), keys.end - keys.begin)  # rows that see 1, 2, ... keys
        return short * (short + 1) // 2 + max(row - keys.end, 0) * (keys.end - keys.begin)
    return up_to(rows.end) - up_to(rows.begin)


def _merged(ranges):
    merged = []
    for begin, end in ranges:
        if merged and merged[-1].end == begin:
            merged[-1] = TokenRange(merged[-1].begin, end)
        else:
            merged.append(TokenRange(begin, end))
    return merged
