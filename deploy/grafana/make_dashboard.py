#!/usr/bin/env python3
"""Makes Grafana's dashboard of Chorus, deploy/grafana/dashboards/chorus.json, from panels.py.

    .venv/bin/python deploy/grafana/make_dashboard.py            writes it
    .venv/bin/python deploy/grafana/make_dashboard.py --check    exit code 1 if it is not up to date

Grafana's own SDK gives the JSON its form, as of Grafana 11.6; later versions read it too.
"""

import argparse
import itertools
import json
import pathlib
import string
import sys

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

import panels

OUT = pathlib.Path(__file__).resolve().parent / "dashboards" / "chorus.json"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHTS = {"stat": 4, "timeseries": 8, "heatmap": 8, "table": 6}


def thresholds_of(panel):
    base = "red" if panel.colours == ("green",) else "green"
    steps = [models.Threshold(value=None, color=base)]
    steps += [
        models.Threshold(value=value, color=colour)
        for value, colour in zip(panel.thresholds, panel.colours)
    ]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def time_series_panel(panel):
    built = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(60 if panel.stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if panel.stacked:
        built.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if panel.thresholds:
        built.thresholds(thresholds_of(panel)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    return built


def stat_panel(panel):
    return (
        stat.Panel()
        .thresholds(thresholds_of(panel))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(
            common_models.BigValueColorMode.VALUE
            if panel.thresholds
            else common_models.BigValueColorMode.NONE
        )
    )


def heat_map_panel(panel):
    return (
        heatmap.Panel()
        .calculate(False)
        .cell_gap(1)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Viridis")
            .steps(64)
            .exponent(0.5)
            .fill("dark-orange")
        )
        .y_axis(heatmap.YAxisConfig().unit(panel.unit))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(common_models.HeatmapCellLayout.LE))
        .cell_values(heatmap.CellValues().unit("short"))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .show_legend()
        .mode(common_models.TooltipDisplayMode.SINGLE)
        .show_y_histogram()
    )


def table_panel(_):
    hidden = {name: True for name in ("Time", "Value", "__name__", "job")}
    return table.Panel().with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    )


def query_of(panel, query, ref_id):
    built = (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .ref_id(ref_id)
        .expr(query.expr)
        .editor_mode(prometheus_models.QueryEditorMode.CODE)
    )
    if panel.kind == "table":
        return built.instant().format(prometheus_models.PromQueryFormat.TABLE)
    if panel.kind == "heatmap":
        built.format(prometheus_models.PromQueryFormat.HEATMAP)
    return built.range().legend_format(query.legend or panel.title)


def panel_of(panel):
    make = {
        "stat": stat_panel,
        "timeseries": time_series_panel,
        "heatmap": heat_map_panel,
        "table": table_panel,
    }[panel.kind]
    built = (
        make(panel)
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .height(HEIGHTS[panel.kind])
        .span(panel.width)
        .unit(panel.unit)
    )
    for value, setter in (
        (panel.minimum, built.min),
        (panel.maximum, built.max),
        (panel.decimals, built.decimals),
    ):
        if value is not None:
            setter(value)
    for query, ref_id in zip(panel.queries, string.ascii_uppercase):
        built.with_target(query_of(panel, query, ref_id))
    return built


def label_variable(name, label, query):
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def dashboard_of(rows):
    built = (
        dashboard.Dashboard("Chorus")
        .uid("chorus")
        .description("One or more Chorus servers: traffic, latency, capacity, fusion, workers.")
        .tags(["chorus"])
        .editable()
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(label_variable("job", "Job", "label_values(chorus_build_info, job)"))
        .with_variable(
            label_variable("instance", "Instance", 'label_values(chorus_build_info{job=~"$job"}, instance)')
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("red")
            .expr('ALERTS{alertstate="firing",alertname=~"Chorus.*"}')
        )
    )
    panel_ids = itertools.count(1)  # stable while panels keep their order: links hold them
    for row in rows:
        built.with_row(dashboard.Row(row.title).id(next(panel_ids)))
        for panel in row.panels:
            built.with_panel(panel_of(panel).id(next(panel_ids)))
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    text = dashboard_of(panels.ROWS)
    if not arguments.check:
        OUT.write_text(text)
    elif not OUT.exists() or OUT.read_text() != text:
        print(
            f"{OUT.name} is not what panels.py says: run deploy/grafana/make_dashboard.py", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
