"""Sink scores and what else sums up one layer's attention over the units of a fused sequence."""
import dataclasses
import warnings

import numpy as np

SINK_HEAD_SCORE = 2.0   # a head above it is a sink head
SINK_LAYER_RATIO = 1.2  # a layer whose first / middle is above it has a sink


@dataclasses.dataclass(frozen=True)
class LayerStatistics:
    """Of one layer and one quantity, [heads, units]: the mean over the chosen rows."""
    values: np.ndarray       # [heads, units]
    sink_scores: np.ndarray  # [heads] first - mean of the middle
    spreads: np.ndarray      # [heads] (max - min) / |mean| * 100, percent
    mean: np.ndarray         # [units] over heads
    deviation: np.ndarray    # [units] over heads, with N in the denominator
    first: float             # of `mean`, as are the next two
    middle: float
    last: float

    @property
    def ratio(self):
        """first / middle. It says nothing where the middle is not positive."""
        return float(np.divide(self.first, self.middle)) if self.middle else float("nan")

    @property
    def difference(self):
        return self.first - self.last

    @property
    def sink_heads(self):
        """Indexes into heads."""
        return np.flatnonzero(self.sink_scores > SINK_HEAD_SCORE).tolist()

    @property
    def has_sink(self):
        return bool(self.ratio > SINK_LAYER_RATIO)


def layer_statistics(values):
    """Of `values` [heads, units], one number a unit, units in the sequence's order."""
    values = np.asarray(values, dtype=np.float64)
    middle = _middle(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        spreads = (values.max(1) - values.min(1)) / np.abs(values.mean(1)) * 100
    mean = values.mean(0)
    return LayerStatistics(
        values=values, sink_scores=values[:, 0] - middle, spreads=spreads, mean=mean,
        deviation=values.std(0), first=float(mean[0]), middle=float(_middle(mean[None])[0]),
        last=float(mean[-1]))


def _middle(values):
    """Mean of what stands between first and last; of everything if nothing does. [heads]"""
    return values[:, 1:-1].mean(1) if values.shape[1] > 2 else values.mean(1)


@dataclasses.dataclass(frozen=True)
class AttentionStatistics:
    """Of every layer of an ExplainData, for one quantity."""
    quantity: str    # "logits" or "mass"
    layers: list     # 0-based, as in the data
    heads: list
    units: list      # those that some chosen row sees
    by_layer: list   # of LayerStatistics

    def of_layer(self, layer):
        return self.by_layer[self.layers.index(layer)]

    def largest_sink(self):
        """(layer, head) with the largest sink score; the earliest of equals."""
        scores = np.stack([statistics.sink_scores for statistics in self.by_layer])
        layer, head = np.unravel_index(int(scores.argmax()), scores.shape)
        return self.layers[layer], self.heads[head]


def attention_statistics(data, quantity):
    """`data`: ExplainData. Rows that see no key of a unit (NaN) do not count in its mean; a unit
    that none of the chosen rows sees is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # the mean of no rows
        logits = np.nanmean(data.logits.astype(np.float64), axis=1)  # [layers, heads, units]
    seen = ~np.isnan(logits).any(axis=(0, 1))
    values = logits if quantity == "logits" else data.mass.astype(np.float64).mean(axis=1)
    return AttentionStatistics(
        quantity, data.layers, data.heads,
        [unit for unit, kept in zip(data.units, seen) if kept],
        [layer_statistics(layer[:, seen]) for layer in values])
