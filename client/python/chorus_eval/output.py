"""Writes everything that a run leaves but its journal."""
from __future__ import annotations

import pathlib

from chorus_eval import figures as drawings
from chorus_eval import report, results, tables


def write_outputs(output, records, timings, summary, figures=True, note=print):
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    results.write_lines(output / results.RESULTS, records)
    results.write_lines(output / results.TIMINGS, timings)
    results.write_json(output / results.SUMMARY, summary)
    results.write_text(output / "summary.md", tables.summary_markdown(summary))
    drawn = _draw(output, summary, note) if figures else {}
    results.write_text(output / "report.html", report.make_report(summary, records, drawn))


def _draw(output, summary, note):
    try:
        drawn = drawings.make_figures(summary)
    except drawings.FiguresMissing as missing:
        note(str(missing))
        return {}
    folder = output / "figures"
    folder.mkdir(exist_ok=True)
    for name, figure in drawn.items():
        results.write_text(folder / f"{name}.svg", figure["svg"])
        (folder / f"{name}.png").write_bytes(figure["png"])
    return drawn
