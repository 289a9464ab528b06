"""Means with percentile bootstrap intervals. Every comparison is paired: methods are resampled by the
same questions."""
from __future__ import annotations

import dataclasses

import numpy

ROUNDS = 10_000
_DRAWS_AT_A_TIME = 1 << 20


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean, and the interval of 95 % about it."""
    mean: float
    low: float
    high: float


def resampled_means(values, rounds=ROUNDS, seed=1):
    """[rounds, columns] means of `values` [questions, columns] over questions drawn with replacement:
    the same draw for all columns."""
    values = numpy.asarray(values, dtype=float)
    generator = numpy.random.default_rng(seed)
    count = len(values)
    at_a_time = max(1, _DRAWS_AT_A_TIME // count)
    means = []
    for begin in range(0, rounds, at_a_time):
        draws = generator.integers(0, count, size=(min(at_a_time, rounds - begin), count))
        # How often each question was drawn: one product instead of a gather for every column.
        counts = numpy.stack([numpy.bincount(draw, minlength=count) for draw in draws])
        means.append(counts @ values / count)
    return numpy.concatenate(means)


def interval(mean, samples):
    low, high = numpy.percentile(samples, [2.5, 97.5])
    return Interval(float(mean), float(low), float(high))


def intervals(values):
    """An Interval for each column of `values` [questions, columns]."""
    values = numpy.asarray(values, dtype=float)
    means = resampled_means(values)
    return [interval(values[:, c].mean(), means[:, c]) for c in range(values.shape[1])]


def paired_differences(values):
    """{(a, b): Interval of column a minus column b} for all a != b of `values` [questions, columns]."""
    values = numpy.asarray(values, dtype=float)
    means, columns = resampled_means(values), range(values.shape[1])
    return {(a, b): interval(values[:, a].mean() - values[:, b].mean(), means[:, a] - means[:, b])
            for a in columns for b in columns if a != b}


def percentile(values, share):
    return float(numpy.percentile(numpy.asarray(values, dtype=float), 100 * share))
