"""An experiment's pictures, as SVG: accuracy along an axis, accuracy against seconds."""
from __future__ import annotations

import io

from chorus_eval import results
from chorus_eval.figures import FiguresMissing, drawing_library

_COLOURS = ("#2f6690", "#c1553b", "#4f8a5b", "#8a6fb0", "#b08a2e", "#5a5a5a", "#3aa0a0", "#a04a78")
_MOST_LINES = 4       # in one pair of axes; more get one pair each
_DODGE = 0.012        # of the x range, between lines whose intervals would hide one another
_PANEL_COLUMNS = 4


def write(folder, found):
    """Every group's figure; says so where matplotlib is missing."""
    try:
        pyplot = drawing_library()
    except FiguresMissing as missing:
        print(missing)
        return
    folder.mkdir(exist_ok=True)
    for name, figure in _figures(pyplot, found):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
        results.write_text(folder / f"{name}.svg", text.getvalue())


def _figures(pyplot, found):
    for group in found["groups"]:
        if group["figure"]:
            yield group["name"], _draw_group(pyplot, found, group)
        if group["cost"] and all("seconds" in row for row in group["rows"]):
            yield f"{group['name']}_seconds", _draw_seconds(pyplot, found, group)


def _lines_of(group):
    """{line's label: [(x label, accuracy)]} in the plan's order."""
    lines = {}
    for row in group["rows"]:
        name = row["labels"].get(group["figure"].get("lines"), "")
        lines.setdefault(name, []).append((row["labels"][group["figure"]["x"]], row["accuracy"]))
    return lines


def _positions(labels):
    """(x of each label, ticks' labels or None): numbers where all are, else their order."""
    try:
        return [float(label) for label in labels], None
    except ValueError:
        return list(range(len(labels))), labels


def _plot_line(axes, xs, found, colour, label):
    means = [f["mean"] for f in found]
    errors = [[f["mean"] - f["low"] for f in found], [f["high"] - f["mean"] for f in found]]
    axes.errorbar(xs, means, yerr=errors, fmt="o-", color=colour, ecolor=colour, elinewidth=1, capsize=2, markersize=4,
                  linewidth=1.5, label=label)


def _mark_baselines(axes, found):
    for (name, row), style in zip(found["baselines"].items(), (":", "--", "-.")):
        axes.axhline(row["accuracy"]["mean"], color="#888888", linewidth=1, linestyle=style, label=name)


def _draw_group(pyplot, found, group):
    lines = _lines_of(group)
    xs, tick_labels = _positions([label for label, _ in next(iter(lines.values()))])
    draw = _draw_panels if len(lines) > _MOST_LINES else _draw_together
    figure = draw(pyplot, found, group, lines, xs)
    for axes in figure.axes:
        axes.set_xticks(xs, tick_labels)
    return figure


def _draw_together(pyplot, found, group, lines, xs):
    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    _mark_baselines(axes, found)
    step = _DODGE * (max(xs) - min(xs))
    for index, (name, points) in enumerate(lines.items()):
        shift = step * (index - (len(lines) - 1) / 2)
        label = f"{group['figure']['lines']} {name}" if name else None
        _plot_line(axes, [x + shift for x in xs], [f for _, f in points], _COLOURS[index], label)
    axes.set_xlabel(group["figure"].get("label", group["figure"]["x"]))
    axes.set_ylabel(f"{found['metric']}, 95 %")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _draw_panels(pyplot, found, group, lines, xs):
    columns = min(_PANEL_COLUMNS, len(lines))
    num_rows = -(-len(lines) // columns)
    figure, grid = pyplot.subplots(num_rows, columns, figsize=(2.1 * columns, 2 * num_rows + 0.4), sharex=True,
                                   sharey=True, squeeze=False, layout="constrained")
    panels = list(grid.flat)
    for index, (panel, (name, points)) in enumerate(zip(panels, lines.items())):
        _mark_baselines(panel, found)
        _plot_line(panel, xs, [f for _, f in points], _COLOURS[index % len(_COLOURS)], None)
        panel.set_title(name, fontsize=10)
    for panel in panels[len(lines):]:
        panel.set_axis_off()
    figure.supxlabel(group["figure"].get("label", group["figure"]["x"]), fontsize=10)
    figure.supylabel(f"{found['metric']}, 95 %", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def _draw_seconds(pyplot, found, group):
    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    for index, row in enumerate(group["rows"]):
        accuracy = row["accuracy"]
        axes.errorbar([row["seconds"]], [accuracy["mean"]],
                      yerr=[[accuracy["mean"] - accuracy["low"]], [accuracy["high"] - accuracy["mean"]]],
                      fmt="os^Dv<>P*X"[index % 10], color=_COLOURS[index % len(_COLOURS)], elinewidth=1, capsize=2,
                      label=", ".join(row["labels"].values()))
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds a question")
    axes.set_ylabel(f"{found['metric']}, 95 %")
    figure.legend(loc="outside right upper", frameon=False)
    return figure
