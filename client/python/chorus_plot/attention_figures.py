"""Pictures of attention over units: two heads, all heads of a layer, layers side by side.

As in founding document 004 pictures and their files count layers and heads from 1 (L1H1); data,
flags and tables count from 0, and every title says both.
"""
import math

import matplotlib
import numpy as np

from chorus_plot import style
from chorus_plot.attention_statistics import SINK_HEAD_SCORE

AXIS = {"logits": "logits before softmax, mean over keys", "mass": "share of attention"}
MAX_COMPARED_LAYERS = len(style.PALETTE)
MAX_WRITTEN_CELLS = 200  # more numbers than this in a heat map cannot be read


def queries_text(data):
    """Which rows the figures speak of."""
    steps = data.steps
    if len(steps) == 1:
        return f"row that generated token {steps[0]} was drawn from"
    together = steps == list(range(steps[0], steps[-1] + 1))
    which = f"{steps[0]} to {steps[-1]}" if together else f"{steps[0]} ... {steps[-1]}"
    return f"mean over the rows that generated tokens {which} were drawn from"


def attention_main_figure(data, statistics, heads):
    """Two (or any number of) heads, given as (layer, head): bars and line, the maximum marked."""
    count = len(heads)
    units = len(statistics.units)
    figure = style.new_figure(max(4.8, units * 0.55) * count, 4.4)
    for index, (layer, head) in enumerate(heads):
        axes = figure.add_subplot(1, count, index + 1)
        one = statistics.of_layer(layer)
        at = statistics.heads.index(head)
        color = style.PALETTE[index % len(style.PALETTE)]
        _bars(axes, one.values[at], color, markersize=5)
        _mark_maximum(axes, one.values[at], statistics.quantity)
        _unit_ticks(axes, statistics.units, fontsize=9)
        axes.margins(y=0.14)
        axes.set_ylabel(AXIS[statistics.quantity])
        axes.set_title(f"L{layer + 1}H{head + 1} (layer index {layer}, head index {head})\n"
                       f"sink score {one.sink_scores[at]:.2f}, spread {one.spreads[at]:.0f} %")
    style.title(figure, "Attention of two heads over the fused sequence" if count == 2 else
                "Attention of chosen heads over the fused sequence", queries_text(data))
    return figure


def per_head_grid_figure(data, statistics, layer):
    """Every head of one layer on one scale, with its sink score; sink heads in another colour."""
    one = statistics.of_layer(layer)
    heads = statistics.heads
    columns = min((4, 3, 5), key=lambda count: -len(heads) % count)  # 4, or what leaves fewer holes
    columns = min(columns, len(heads))
    rows = math.ceil(len(heads) / columns)
    figure = style.new_figure(3.1 * columns, 1.9 * rows + 1.3)
    all_axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for index, axes in enumerate(all_axes.flat):
        if index >= len(heads):
            axes.axis("off")
            continue
        sink = index in one.sink_heads
        _bars(axes, one.values[index], style.SINK if sink else style.PALETTE[0], markersize=3)
        axes.set_title(f"H{heads[index] + 1} (Δ={one.sink_scores[index]:.2f})"
                       + (" sink" if sink else ""), fontsize=10)
        if index + columns >= len(heads):  # nothing below it
            _unit_ticks(axes, statistics.units, fontsize=8)
            axes.tick_params(labelbottom=True)
    figure.supylabel(AXIS[statistics.quantity], fontsize=10)
    legend = "Δ = first unit - mean of the middle"
    if statistics.quantity == "logits":
        legend += f"; above {SINK_HEAD_SCORE} a head is a sink head"
    style.title(figure, f"Layer {layer + 1} (index {layer}): every head",
                f"{legend}\n{queries_text(data)}")
    return figure


def all_heads_figure(data, statistics, layer):
    """Heat map of one layer: heads down, units across."""
    values = statistics.of_layer(layer).values
    heads, units = values.shape
    figure = style.new_figure(max(5.5, units * 0.85 + 2.5), max(2.8, heads * 0.36 + 1.9))
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(values, cmap=style.SEQUENTIAL, edgecolors="white", linewidth=0.5)
    axes.set(ylim=(heads, 0))
    axes.set_yticks(np.arange(heads) + 0.5, [f"H{head + 1}" for head in statistics.heads])
    _unit_ticks(axes, statistics.units, fontsize=9, offset=0.5)
    axes.tick_params(length=0)
    figure.colorbar(mesh, ax=axes, label=AXIS[statistics.quantity])
    if values.size <= MAX_WRITTEN_CELLS:
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(values):
            axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=8,
                      color="black" if value > middle else "white")
    style.title(figure, f"Layer {layer + 1} (index {layer}): attention of all heads",
                queries_text(data))
    return figure


def layer_comparison_figure(data, statistics, layers):
    """Mean over heads of each layer, with one standard deviation either side."""
    figure = style.new_figure(max(8.0, len(statistics.units) * 0.7 + 2), 4.6)
    axes = figure.add_subplot()
    at = np.arange(len(statistics.units))
    colors = matplotlib.colormaps[style.SEQUENTIAL](np.linspace(0, 0.85, len(layers)))
    for color, marker, layer in zip(colors, "osD^vP", layers):
        one = statistics.of_layer(layer)
        axes.plot(at, one.mean, marker=marker, markersize=5, linewidth=2, color=color,
                  label=f"layer {layer + 1} (index {layer})")
        axes.fill_between(at, one.mean - one.deviation, one.mean + one.deviation, color=color,
                          alpha=0.15, linewidth=0)
    _unit_ticks(axes, statistics.units, fontsize=9)
    axes.grid(True)
    axes.set_ylabel(f"{AXIS[statistics.quantity]}\nmean over heads")
    figure.legend(loc="outside right upper", title="± one standard\ndeviation over heads")
    style.axes_title(axes, "Attention layer by layer", queries_text(data))
    return figure


def compared_layers(layers):
    """At most MAX_COMPARED_LAYERS of `layers`, evenly, with the first and the last."""
    count = min(len(layers), MAX_COMPARED_LAYERS)
    if count < 2:
        return list(layers)
    return [layers[index * (len(layers) - 1) // (count - 1)] for index in range(count)]


def _bars(axes, values, color, markersize):
    at = np.arange(len(values))
    axes.bar(at, values, width=0.75, color=color, alpha=0.55)
    axes.plot(at, values, "o-", color=style.INK, linewidth=1.2, markersize=markersize)
    axes.axhline(0, color=style.INK, linewidth=0.6)
    axes.set_xlim(-0.75, len(values) - 0.25)
    axes.grid(True, axis="y")


def _mark_maximum(axes, values, quantity):
    at = int(np.argmax(values))
    number = f"{values[at]:.1%}" if quantity == "mass" else f"{values[at]:.2f}"
    axes.annotate(f"max {number}", (at, values[at]), xytext=(0, 7), textcoords="offset points",
                  ha="center", va="bottom", fontsize=9, fontweight="bold", color=style.INK,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})


def _unit_ticks(axes, units, fontsize, offset=0.0):
    axes.set_xticks(np.arange(len(units)) + offset, [unit.label for unit in units], rotation=45,
                    ha="right", rotation_mode="anchor", fontsize=fontsize)
