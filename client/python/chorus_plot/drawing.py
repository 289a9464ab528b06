"""Which figures are made of what, and the names of their files."""
import pathlib

import numpy as np

from chorus_plot import attention_figures, attribution_figure, flowchart, mask_figures, style
from chorus_plot.attention_statistics import attention_statistics
from chorus_plot.errors import check
from chorus_plot.layout import SCENARIOS
from chorus_plot.sampling import sampled_positions

MAX_FULL_POSITIONS = 2000  # 2,000 x 2,000 squares are as many as a screen can show
MAX_LAYERS_UNASKED = 4
PATTERNS_SCENARIO = "medium"


def draw_flowchart(folder):
    with style.settings():
        return style.save(flowchart.flowchart_figure(), folder, "flowchart")


def draw_scenario(name, folder):
    """One of the named layouts. `medium` comes with attention_patterns, `custom` with its matrix."""
    pieces, max_positions = SCENARIOS[name]
    layout = pieces.layout()
    return draw_mask(layout, layout.runs(), shown_positions(layout, max_positions), folder, name,
                     with_patterns=name == PATTERNS_SCENARIO, with_matrix=name == "custom")


def shown_positions(layout, max_positions):
    """At most max_positions of them; None: every one."""
    if max_positions is not None:
        return sampled_positions(layout, max_positions)
    check(layout.length <= MAX_FULL_POSITIONS,
          f"length is {layout.length}; a full picture has at most {MAX_FULL_POSITIONS} positions")
    return list(range(layout.length))


def draw_mask(layout, mask_runs, positions, folder, name, *, title=None, with_patterns=True,
              with_matrix=True):
    """mask_NAME, and on demand attention_patterns and mask_matrix_NAME.npy: what the picture shows,
    boolean [positions, positions]."""
    with style.settings():
        figure = mask_figures.mask_figure(layout, mask_runs, positions, title or name)
        paths = style.save(figure, folder, f"mask_{name}")
        if with_patterns:
            figure = mask_figures.attention_patterns_figure(layout, mask_runs, title or name)
            paths += style.save(figure, folder, "attention_patterns")
    if with_matrix:
        paths.append(pathlib.Path(folder) / f"mask_matrix_{name}.npy")
        np.save(paths[-1], mask_figures.displayed_matrix(mask_runs, positions))
    return paths


def default_heads(data):
    """The first layer's first head, and the head with the largest sink score of the logits."""
    first = (data.layers[0], data.heads[0])
    largest = attention_statistics(data, "logits").largest_sink()
    return [first] if first == largest else [first, largest]


def draw_attention(data, folder, quantities, heads=None, layers=None):
    """attention_main, layerN_per_head_grid, layerN_all_heads and layer_comparison, N from 1; names of
    the figures of mass end in _mass. `heads`: (layer, head) of attention_main. `layers`: those drawn;
    by default all if they are few, else those of `heads` in detail and some compared."""
    heads = heads or default_heads(data)
    for layer, head in heads:
        _check_in(layer, data.layers, "layer")
        _check_in(head, data.heads, "head")
    for layer in layers or []:
        _check_in(layer, data.layers, "layer")
    few = len(data.layers) <= MAX_LAYERS_UNASKED
    detailed = layers or (data.layers if few else sorted({layer for layer, _ in heads}))
    compared = attention_figures.compared_layers(layers or data.layers)
    paths = []
    with style.settings():
        for quantity in quantities:
            statistics = attention_statistics(data, quantity)
            suffix = "" if quantity == "logits" else f"_{quantity}"

            def save(figure, name, suffix=suffix):
                paths.extend(style.save(figure, folder, name + suffix))

            save(attention_figures.attention_main_figure(data, statistics, heads), "attention_main")
            for layer in detailed:
                save(attention_figures.per_head_grid_figure(data, statistics, layer),
                     f"layer{layer + 1}_per_head_grid")
                save(attention_figures.all_heads_figure(data, statistics, layer),
                     f"layer{layer + 1}_all_heads")
            save(attention_figures.layer_comparison_figure(data, statistics, compared),
                 "layer_comparison")
    return paths


def draw_attribution(data, folder):
    with style.settings():
        return style.save(attribution_figure.attribution_figure(data), folder, "attribution")


def _check_in(value, known, what):
    names = ", ".join(map(str, known))
    check(value in known, f"{what} is {value}; the data has {names} (counted from 0)")
