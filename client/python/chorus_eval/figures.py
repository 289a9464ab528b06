"""The pictures of a run, each as SVG and PNG."""
from __future__ import annotations

import io

_MARKERS = "os^Dv<>P*X"


class FiguresMissing(Exception):
    """matplotlib is not installed."""


def drawing_library():
    try:
        import matplotlib
    except ImportError:
        raise FiguresMissing("no pictures without matplotlib: python3 -m pip install "
                             "'chorus-client[eval]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot
    # Text stays text, and the same run gives the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "chorus", "font.size": 10,
                                "axes.spines.top": False, "axes.spines.right": False})
    return matplotlib.pyplot


def _errors(found):
    return [[max(0.0, f["mean"] - f["low"]) for f in found], [max(0.0, f["high"] - f["mean"]) for f in found]]


def draw_accuracy(pyplot, summary):
    methods = list(summary["methods"])
    found = [entry["accuracy"][summary["metric"]] for entry in summary["methods"].values()]
    figure, axes = pyplot.subplots(figsize=(7, 0.45 * len(methods) + 1.3), layout="constrained")
    rows = range(len(methods))
    axes.barh(rows, [f["mean"] for f in found], xerr=_errors(found), color="#4878a8", ecolor="#222222", capsize=3)
    axes.set_yticks(rows, methods)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"{summary['metric']}, mean over {summary['questions']} questions, 95 % interval")
    return figure


def draw_differences(pyplot, summary):
    baseline = summary["baseline"]
    found = [d for d in summary["differences"] if d["minus"] == baseline]
    figure, axes = pyplot.subplots(figsize=(7, 0.45 * len(found) + 1.3), layout="constrained")
    rows = range(len(found))
    axes.errorbar([d["mean"] for d in found], rows, xerr=_errors(found), fmt="o", color="#4878a8",
                  ecolor="#222222", capsize=3)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(rows, [d["method"] for d in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel(f"{summary['metric']} minus that of {baseline}, paired, 95 % interval")
    return figure


def draw_cost(pyplot, summary):
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for index, (method, entry) in enumerate(summary["methods"].items()):
        axes.plot(entry["seconds"], entry["accuracy"][summary["metric"]]["mean"], linestyle="none",
                  marker=_MARKERS[index % len(_MARKERS)], markersize=8, alpha=0.8, label=method)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds an answer, queue and all")
    axes.set_ylabel(summary["metric"])
    axes.margins(0.1)
    # Beside the axes: methods that cost and score alike would hide one another's names.
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def make_figures(summary):
    """{name: {"svg": text, "png": bytes}}. Leaves out what there is nothing to draw for."""
    pyplot = drawing_library()
    draw = {"accuracy": draw_accuracy}
    if len(summary["methods"]) > 1:
        draw["differences"] = draw_differences
    if all("seconds" in entry for entry in summary["methods"].values()):
        draw["cost"] = draw_cost
    made = {}
    for name, function in draw.items():
        figure = function(pyplot, summary)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=150)
        pyplot.close(figure)
        made[name] = {"svg": svg.getvalue(), "png": png.getvalue()}
    return made
