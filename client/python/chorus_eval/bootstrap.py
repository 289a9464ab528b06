"""Means with percentile bootstrap intervals. Every comparison is paired: methods are resampled by the
same questions. Where many are made, p values by sign flips, corrected after Holm: scipy and statsmodels
have both, but would be two large packages for a page of NumPy."""
from __future__ import annotations

import dataclasses

import numpy

ROUNDS = 10_000
FLIPS = 100_000
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


def sign_flip_p(differences, rounds=FLIPS, seed=1):
    """Two-sided p value of each column of paired `differences` [questions, columns]: how often their mean
    would be as far from 0 if each question's sign were a coin's. Never 0: at least 1 / (rounds + 1)."""
    differences = numpy.asarray(differences, dtype=float)
    generator = numpy.random.default_rng(seed)
    count = len(differences)
    # Sums that are equal but for rounding count as equal.
    least = numpy.abs(differences.sum(axis=0)) - 1e-9 * count
    at_a_time, as_far = max(1, _DRAWS_AT_A_TIME // count), numpy.zeros(differences.shape[1])
    for begin in range(0, rounds, at_a_time):
        signs = generator.integers(0, 2, size=(min(at_a_time, rounds - begin), count)) * 2.0 - 1.0
        as_far += (numpy.abs(signs @ differences) >= least).sum(axis=0)
    return (as_far + 1) / (rounds + 1)


def holm(p_values):
    """p values corrected for their number (Holm 1979): the chance that any of them is below alpha by
    accident is at most alpha."""
    p_values = numpy.asarray(p_values, dtype=float)
    order = numpy.argsort(p_values, kind="stable")
    stepped = p_values[order] * numpy.arange(len(p_values), 0, -1)
    corrected = numpy.empty(len(p_values))
    corrected[order] = numpy.minimum(1.0, numpy.maximum.accumulate(stepped))
    return corrected


def percentile(values, share):
    return float(numpy.percentile(numpy.asarray(values, dtype=float), 100 * share))
