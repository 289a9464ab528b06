"""An experiment's differences between settings: intervals, and p values corrected for their number."""
from __future__ import annotations

import dataclasses

import numpy

from chorus_eval import bootstrap


def interval(found):
    return {name: round(value, 5) for name, value in dataclasses.asdict(found).items()}


class Comparisons:
    """Of every column of `values` [questions, settings], 0..1: its interval, and its paired difference from
    those columns that `others` names ({index: name}, one a column). `keys` are equal for columns that ask the
    same: what is compared once counts once. The held-out part is what follows the first `tuned_on` rows."""

    def __init__(self, values, tuned_on, keys, others):
        self._values, self._keys, self._others = values, keys, others
        self._tuned_on = tuned_on if tuned_on < len(values) else 0
        self._accuracy = bootstrap.intervals(values)
        self._held_out = bootstrap.intervals(values[self._tuned_on:])
        self._corrected = self._p_values()

    @property
    def count(self):
        return len(self._corrected)

    def _pair(self, column, other):
        """The same for either direction."""
        return tuple(sorted((self._keys[column], self._keys[other])))

    def _p_values(self):
        """{pair: (p, p after Holm)} of all that are compared."""
        columns = {self._pair(column, other): (column, other) for column, named in enumerate(self._others)
                   for other in named if self._keys[other] != self._keys[column]}
        if not columns:
            return {}
        p_values = bootstrap.sign_flip_p(numpy.stack([self._values[:, a] - self._values[:, b]
                                                      for a, b in columns.values()], axis=1))
        return dict(zip(columns, zip(p_values, bootstrap.holm(p_values))))

    def row(self, column):
        """The document of one column."""
        others = list(self._others[column])
        row = {"accuracy": interval(self._accuracy[column]), "minus": self._differences(column, others, 0)}
        for name, other in zip(self._others[column].values(), others):
            p, corrected = self._corrected.get(self._pair(column, other), (None, None))
            row["minus"][name].update(p=p and round(float(p), 6), holm=corrected and round(float(corrected), 6))
        if self._tuned_on:
            row["tuned"] = round(float(self._values[:self._tuned_on, column].mean()), 5)
            row["held_out"] = interval(self._held_out[column])
            row["held_out_minus"] = self._differences(column, others, self._tuned_on)
        return row

    def _differences(self, column, others, begin):
        if not others:
            return {}
        values = self._values[begin:]
        found = bootstrap.intervals(values[:, [column]] - values[:, others])
        return {name: interval(difference) for name, difference in zip(self._others[column].values(), found)}
