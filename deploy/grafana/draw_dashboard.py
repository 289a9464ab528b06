#!/usr/bin/env python3
"""Draws the dashboard's panels, with what a running Prometheus answers to their queries, into one
picture for documents. It is no screenshot of Grafana: the same panels and queries, drawn by
matplotlib.

    .venv/bin/python deploy/grafana/draw_dashboard.py --prometheus=http://localhost:9090 --output=dashboard.png
"""
import argparse
import io
import json
import math
import pathlib
import re
import sys
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402

import panels  # noqa: E402

# The palette of Okabe and Ito (2008), which colour-blind readers tell apart, its yellow left out.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#4D4D4D", "#A6A6A6")
THRESHOLD_COLOURS = {"green": "#009E73", "yellow": "#E69F00", "red": "#D55E00"}
NUM_POINTS = 160
UNIT_PIXELS = (72, 30)  # of one unit of Grafana's grid: width, height
HEIGHTS = {"stat": 4, "timeseries": 8, "heatmap": 8, "table": 8}
DPI = 100


def ask(server, expr, start, end):
    """[(labels, times, values)]."""
    step = max((end - start) / NUM_POINTS, 0.1)
    query = urllib.parse.urlencode({"query": expr, "start": start, "end": end, "step": step})
    with urllib.request.urlopen(f"{server}/api/v1/query_range?{query}", timeout=60) as reply:
        found = json.load(reply)["data"]["result"]
    return [(series["metric"], *np.array(series["values"], dtype=float).T) for series in found]


def answers(server, seconds, rate_interval, selected=(".*", ".*"), end=None):
    """What each query of each panel gives: {(row, panel): [[(labels, times, values)] a query]}. Times
    are in minutes, up to 0."""
    end = end or time.time()
    found = {}
    for row in panels.ROWS:
        for panel in row.panels:
            results = []
            for query in panel.queries:
                expr = query.expr.replace("$__rate_interval", rate_interval)
                expr = expr.replace("$job", selected[0]).replace("$instance", selected[1])
                series = ask(server, expr, end - seconds, end)
                results.append([(labels, (when - end) / 60, values) for labels, when, values in series])
            found[row.title, panel.title] = results
    return found


def text_of(value, unit):
    """A value as Grafana would write it, about three digits."""
    if math.isnan(value):
        return "-"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    number = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return number + {"reqps": " req/s", "none": ""}.get(unit, unit.removeprefix("suffix:"))


def time_text(minutes, _):
    if minutes == 0:
        return "now"
    return f"{minutes:g} min" if minutes == int(minutes) else f"{minutes * 60:g} s"


def legend_of(query, labels, panel):
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), query.legend) or panel.title


def series_of(panel, results):
    """[(legend, times, values)] of all queries, series that are always 0 left out unless all are."""
    found = [(legend_of(query, labels, panel), when, values)
             for query, series in zip(panel.queries, results) for labels, when, values in series]
    found = sorted(found, key=lambda one: -np.nanmax(one[2], initial=0)) if panel.stacked else found
    alive = [one for one in found if np.nanmax(np.abs(one[2]), initial=0) > 0]
    return alive or found[:1]


def draw_stat(axes, panel, results):
    axes.axis("off")
    series = [one for one in series_of(panel, results) if len(one[2])]
    if not series:
        return
    _, when, values = series[0]
    colour = "#222222"
    if panel.thresholds:
        steps = sum(values[-1] >= limit for limit in panel.thresholds)
        base = "red" if panel.colours == ("green",) else "green"
        colour = THRESHOLD_COLOURS[(base, *panel.colours)[steps]]
    low, high = np.nanmin(values), np.nanmax(values)
    if high > low:
        axes.fill_between(when, values, low - (high - low) * 0.1, color=COLOURS[0], alpha=0.15, linewidth=0)
        axes.set_ylim(low - (high - low) * 0.1, high + (high - low))
    axes.text(0.5, 0.6, text_of(values[-1], panel.unit), transform=axes.transAxes, ha="center", va="center",
              fontsize=13, color=colour, weight="bold")


def draw_time_series(axes, panel, results):
    series = series_of(panel, results)
    if panel.stacked and series:
        when = np.unique(np.concatenate([one[1] for one in series]))
        stacked = [np.nan_to_num(np.interp(when, times, values, left=0, right=0)) for _, times, values in series]
        axes.stackplot(when, stacked, labels=[one[0] for one in series], colors=COLOURS, alpha=0.75, linewidth=0)
    else:
        for index, (label, when, values) in enumerate(series):
            axes.plot(when, values, label=label, color=COLOURS[index % len(COLOURS)], linewidth=1.1)
    axes.margins(y=0.08)
    if panel.minimum is not None:
        axes.set_ylim(bottom=panel.minimum)
    _, top = axes.get_ylim()
    for limit, colour in zip(panel.thresholds, panel.colours):
        if limit <= 1.5 * top:
            axes.axhline(limit, color=THRESHOLD_COLOURS[colour], linewidth=0.9, linestyle="--")
    if len(series) > 1 or "{{" in panel.queries[0].legend:
        axes.legend(fontsize=6, loc="upper left", ncols=2 if len(series) > 3 else 1, framealpha=0.75, borderpad=0.3,
                    handlelength=1.2, labelspacing=0.25, columnspacing=0.8, edgecolor="none")


def draw_heat_map(axes, panel, results):
    by_bound = sorted(((float(labels["le"]), when, values) for labels, when, values in results[0]), key=lambda one: one[0])
    when = by_bound[-1][1]
    cumulative = np.array([np.interp(when, times, values) for _, times, values in by_bound])
    counts = np.diff(cumulative, axis=0, prepend=0).clip(min=0)
    used = np.flatnonzero(counts.max(axis=1) > 1e-9)
    first, last = (used[0], used[-1] + 1) if len(used) else (0, len(counts))
    counts = np.ma.masked_less(counts[first:last], 1e-9)
    edges = np.append(when, when[-1] + (when[1] - when[0] if len(when) > 1 else 1))
    axes.pcolormesh(edges, np.arange(last - first + 1), counts ** 0.5, cmap="viridis_r", rasterized=True)
    bounds = [bound for bound, _, _ in by_bound][first:last]
    axes.set_yticks(np.arange(1, last - first + 1), [text_of(b, panel.unit) if math.isfinite(b) else "more" for b in bounds])
    axes.grid(False)


def draw_table(axes, panel, results):
    axes.axis("off")
    for index, (labels, _, _) in enumerate(results[0][:4]):
        shown = [f"{name}: {value}" for name, value in sorted(labels.items()) if name not in ("__name__", "job")]
        axes.text(0.02, 0.92 - 0.5 * index, "\n".join(shown), transform=axes.transAxes, fontsize=7.5, va="top",
                  family="monospace")


def draw_panel(axes, panel, results):
    axes.set_title(panel.title, fontsize=8, loc="left", weight="bold", pad=4)
    axes.tick_params(labelsize=6.5, length=2, pad=2)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6))
    axes.xaxis.set_major_formatter(time_text)
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: text_of(value, panel.unit))
    {"stat": draw_stat, "timeseries": draw_time_series, "heatmap": draw_heat_map, "table": draw_table}[panel.kind](
        axes, panel, results)
    axes.margins(x=0)


def places():
    """((row, panel or None for the row's own title), x, y, height) in Grafana's grid, and its height."""
    found, top = [], 2
    for row in panels.ROWS:
        found.append((row, None, 0, top, 1))
        x, y, height = 0, top + 1, 0
        for panel in row.panels:
            if x + panel.width > panels.WIDTH:
                x, y, height = 0, y + height, 0
            found.append((row, panel, x, y, HEIGHTS[panel.kind]))
            x, height = x + panel.width, max(height, HEIGHTS[panel.kind])
        top = y + height
    return found, top


def draw(found, subtitle):
    """The picture as a matplotlib figure."""
    layout, height = places()
    pixels = (panels.WIDTH * UNIT_PIXELS[0], height * UNIT_PIXELS[1])
    figure = plt.figure(figsize=(pixels[0] / DPI, pixels[1] / DPI), dpi=DPI)

    def at(x, y):  # pixels from the top left, as a share of the figure
        return x / pixels[0], 1 - y / pixels[1]
    figure.text(*at(12, 22), "Chorus dashboard", fontsize=14, weight="bold", va="center")
    figure.text(*at(12, 46), subtitle, fontsize=8, color="#555555", va="center")
    for row, panel, x, y, units in layout:
        if panel is None:
            figure.text(*at(12, (y + 0.6) * UNIT_PIXELS[1]), row.title, fontsize=10, color="#0072B2", weight="bold", va="center")
            continue
        is_plot = panel.kind in ("timeseries", "heatmap")
        left, bottom, right, top = 62 if is_plot else 12, 26 if is_plot else 6, 12, 26
        corner = at(x * UNIT_PIXELS[0] + left, (y + units) * UNIT_PIXELS[1] - bottom)
        size = (panel.width * UNIT_PIXELS[0] - left - right) / pixels[0], (units * UNIT_PIXELS[1] - top - bottom) / pixels[1]
        draw_panel(figure.add_axes((*corner, *size)), panel, found[row.title, panel.title])
    return figure


def save(figure, path):
    """PNG of at most 255 colours: a third of the size, and nobody sees the difference."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)
    PIL.Image.open(buffer).convert("RGB").quantize(255).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://localhost:9090", help="its address; default %(default)s")
    parser.add_argument("--minutes", type=float, default=60, help="how far back; default %(default)s")
    parser.add_argument("--rate_interval", default="1m", help="for $__rate_interval; default %(default)s: four scrapes")
    parser.add_argument("--job", default=".*", help="regular expression; default: all")
    parser.add_argument("--instance", default=".*", help="regular expression; default: all")
    parser.add_argument("--subtitle", default="", help="what was measured, for the line under the title")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="a .png file")
    arguments = parser.parse_args()
    try:
        found = answers(arguments.prometheus, arguments.minutes * 60, arguments.rate_interval, (arguments.job, arguments.instance))
    except OSError as error:
        print(f"draw_dashboard.py: --prometheus={arguments.prometheus} does not answer: {error}", file=sys.stderr)
        return 1
    note = "Drawn from the dashboard's own queries by draw_dashboard.py; not a screenshot of Grafana. "
    save(draw(found, note + arguments.subtitle), arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
