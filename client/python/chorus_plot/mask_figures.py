"""Pictures of a mask: its matrix, and what four queries may see."""
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from chorus_plot import style
from chorus_plot.sampling import position_labels

MAX_LABELS = 64  # more labels than this would run into each other: then only segments' ends are named
SEGMENT_DASHES = (0, (4, 2))
GENERATION_DASHES = (0, (1.5, 1.5))


def displayed_matrix(mask_runs, positions):
    """The part of the mask that a picture of `positions` shows. Boolean [positions, positions]."""
    return mask_runs.dense(positions, positions)


def mask_figure(layout, mask_runs, positions, name):
    """The mask at `positions`: rows are queries, columns are keys, filled squares may attend."""
    count = len(positions)
    side = min(max(count * 0.17, 5.0), 9.5)
    figure = style.new_figure(side + 2.9, side + 0.6)
    axes = figure.add_subplot()
    matrix = displayed_matrix(mask_runs, positions)
    axes.add_patch(PathPatch(_cells(matrix), facecolor=style.ALLOWED, edgecolor="none"))
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal",
             xlabel="key position", ylabel="query position")
    if count <= MAX_LABELS:
        edges = np.arange(count + 1) - 0.5
        lines = {"color": "#D8D8D8", "linewidth": 0.4, "zorder": 1.5}
        axes.hlines(edges, -0.5, count - 0.5, **lines)
        axes.vlines(edges, -0.5, count - 0.5, **lines)
    _label_positions(axes, layout, positions)
    _boundaries(axes, layout, positions)
    axes.spines[["top", "right"]].set_visible(True)
    shown = (f"all {count} positions" if count == layout.length else
             f"{count} of {layout.length} positions ({count / layout.length:.1%})")
    style.axes_title(axes, f"Attention mask: {name}", shown)
    _legend(figure, layout, _facts(layout, mask_runs, matrix))
    return figure


def _cells(matrix):
    """One path around every filled run of every row: small files, no seams between cells."""
    padded = np.zeros((matrix.shape[0], matrix.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = matrix
    steps = np.diff(padded, axis=1)
    rows, begins = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    corners = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5), (-0.5, -0.5)])
    vertices = np.empty((len(rows), 5, 2))
    vertices[:, :, 0] = np.where(corners[:, 0] < 0, begins[:, None], ends[:, None]) - 0.5
    vertices[:, :, 1] = rows[:, None] + corners[:, 1]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(rows)
    return Path(vertices.reshape(-1, 2), codes)


def _label_positions(axes, layout, positions):
    labels = position_labels(layout, positions)
    ticks = [index for index, label in enumerate(labels)
             if len(positions) <= MAX_LABELS or " " in label]
    if len(ticks) > MAX_LABELS:
        ticks = ticks[::-(-len(ticks) // MAX_LABELS)]
    size = 8 if len(ticks) <= 40 else 6.5
    names = [labels[index] for index in ticks]
    axes.set_xticks(ticks, names, rotation=90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)


def _boundaries(axes, layout, positions):
    """Lines before the first shown position at or after each boundary."""
    edge = {boundary: np.searchsorted(positions, boundary) - 0.5
            for segment in layout.segments for boundary in segment}
    start = np.searchsorted(positions, layout.original_length) - 0.5
    shown = sorted({at for at in edge.values() if -0.5 < at < len(positions) - 0.5} - {start})
    width = min(1.1, 20 / max(len(shown), 1))  # many lines must leave the cells visible
    for at in shown:
        for line in (axes.axhline, axes.axvline):
            line(at, color=style.SEGMENT_BOUNDARY, linestyle=SEGMENT_DASHES, linewidth=width)
    if layout.has_fused_rows:
        for line in (axes.axhline, axes.axvline):
            line(start, color=style.GENERATION_START, linestyle=GENERATION_DASHES, linewidth=1.8)


def _facts(layout, mask_runs, matrix):
    allowed, total = mask_runs.allowed(), mask_runs.total()
    masked = sum(end - begin for begin, end in mask_runs.fully_masked_rows())
    return [
        f"segments  {len(layout.segments)}",
        *([f"prefix  {layout.prefix_length} tokens"] if layout.prefix_length else []),
        f"original length  {layout.original_length}",
        f"length  {layout.length}",
        f"rows that see nothing  {masked}",
        "", "allowed pairs",
        f"  all  {allowed:,} of {total:,} ({allowed / total:.1%})",
        f"  shown  {matrix.sum():,} of {matrix.size:,} ({matrix.mean():.1%})"]


def _boundary_handles(layout):
    handles = [Line2D([], [], color=style.SEGMENT_BOUNDARY, linestyle=SEGMENT_DASHES, linewidth=1.1,
                      label="segment boundary")]
    if layout.has_fused_rows:
        handles.append(Line2D([], [], color=style.GENERATION_START, linestyle=GENERATION_DASHES,
                              linewidth=1.8, label="suffix, then generation" if layout.suffix_length
                              else "generation starts"))
    return handles


def _legend(figure, layout, facts):
    handles = [Patch(facecolor=style.ALLOWED, edgecolor="#888888", label="may attend"),
               Patch(facecolor="white", edgecolor="#888888", label="may not attend"),
               *_boundary_handles(layout)]
    handles += [Line2D([], [], linestyle="none", label=fact) for fact in ["", *facts]]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, handlelength=2.2)


def attention_patterns_figure(layout, mask_runs, name):
    """What each of the representative queries may see, key by key: 2 x 2."""
    figure = style.new_figure(12, 5.6)
    keys = np.arange(layout.length)
    all_axes = figure.subplots(2, 2, sharex=True)
    queries = layout.representative_queries()
    for axes, (label, query) in zip(all_axes.flat, queries):
        allowed = mask_runs.dense([query], keys)[0]
        axes.broken_barh(_stretches(allowed), (0, 1), facecolor=style.ALLOWED)
        for boundary in sorted({edge for segment in layout.segments for edge in segment}
                               - {0, layout.original_length}):
            axes.axvline(boundary, color=style.SEGMENT_BOUNDARY, linestyle=SEGMENT_DASHES,
                         linewidth=0.9)
        if layout.has_fused_rows:
            axes.axvline(layout.original_length, color=style.GENERATION_START,
                         linestyle=GENERATION_DASHES, linewidth=1.8)
        axes.plot([query + 0.5], [1.06], marker="v", color=style.INK, markersize=7, clip_on=False)
        axes.set(xlim=(0, layout.length), ylim=(0, 1.12), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.set_title(f"{label}: query {query} sees {allowed.sum()} of {layout.length} keys "
                       f"({allowed.mean():.1%})")
    for axes in all_axes[1]:
        axes.set_xlabel("key position")
    for axes in list(all_axes.flat)[len(queries):]:
        axes.axis("off")
    style.title(figure, f"What representative queries may see: {name}")
    handles = [Patch(facecolor=style.ALLOWED, label="may attend"),
               Line2D([], [], linestyle="none", marker="v", color=style.INK, label="the query"),
               *_boundary_handles(layout)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _stretches(allowed):
    """(begin, length) of every run of True."""
    steps = np.diff(np.concatenate([[0], allowed.astype(np.int8), [0]]))
    begins, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return list(zip(begins.tolist(), (ends - begins).tolist()))
