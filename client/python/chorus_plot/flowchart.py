"""The way of one request through Chorus, as core/README.md's straight line says it."""
import typing

from matplotlib.patches import FancyBboxPatch, Patch

from chorus_plot import style

BOX_WIDTH, BOX_HEIGHT = 2.5, 0.66
COLUMN_STEP = 3.5
COLORS = {"server": "#CFE3F3", "engine": "#FBE7C2", "worker": "#CDEBE0", "model": "#F0DAE7"}
LEGEND = {"server": "server (gRPC)", "engine": "core/engine, the caller's thread",
          "worker": "core/engine, the worker's own thread",
          "model": "core/model and core/kernels, one step"}


class Box(typing.NamedTuple):
    """`column` and `row` count from the upper left; `note` is the smaller second line."""
    name: str
    note: str
    part: str
    column: int
    row: float


BOXES = (
    Box("InferenceService::Generate", "one call of the client", "server", 0, 0),
    Box("ParseRequest", "template, tokenise", "server", 0, 1),
    Box("Engine::Submit", "", "engine", 1, 0),
    Box("ValidateRequest", "", "engine", 1, 1),
    Box("PlanFusion", "SegmentLayout, canonical order", "engine", 1, 2),
    Box("WorkerPool::Place", "", "engine", 1, 3),
    Box("RequestQueue::Push", "", "engine", 1, 4),
    Box("Batch::RunOnce", "end what is late", "worker", 2, 0),
    Box("admit", "SegmentCache::Pin", "worker", 2, 1),
    Box("Scheduler::PlanStep", "", "worker", 2, 2),
    Box("BuildStepPlan", "", "worker", 2, 3),
    Box("ModelRunner::Run", "", "worker", 2, 4),
    Box("Append", "Detokenizer, StopChecker", "worker", 2, 5),
    Box("TokenSink::OnToken", "", "worker", 2, 6),
    Box("TorchModelRunner::Run", "", "model", 3, 1),
    Box("LlamaModel::Forward", "every layer", "model", 3, 2),
    Box("SegmentAttentionCpu", "the segment mask", "model", 3, 3),
    Box("CombineLogits", "", "model", 3, 4),
    Box("Sample", "", "model", 3, 5),
    Box("TokenStream", "or GenerateManyStream", "server", 0, 6),
    Box("StartWrite ... Finish", "to the client, as it comes", "server", 0, 7),
)


def flowchart_figure():
    figure = style.new_figure(13.4, 7.8)
    axes = figure.add_subplot()
    axes.set(xlim=(-1.5, 3 * COLUMN_STEP + 1.9), ylim=(7.55, -0.75))
    axes.axis("off")
    for box in BOXES:
        _draw_box(axes, box)
    at = {box.name: box for box in BOXES}
    for before, after in zip(BOXES, BOXES[1:]):
        if before.column == after.column and after.row == before.row + 1:
            if after.name != "Append":  # what ModelRunner::Run does stands in the next column
                _arrow(axes, [_bottom(before), _top(after)])
    _across(axes, at["ParseRequest"], at["Engine::Submit"])
    _across(axes, at["RequestQueue::Push"], at["Batch::RunOnce"])
    _across(axes, at["ModelRunner::Run"], at["TorchModelRunner::Run"])
    _arrow(axes, [_left(at["Sample"]), _right(at["Append"])])
    _arrow(axes, [_left(at["TokenSink::OnToken"]), _right(at["TokenStream"])])
    _draw_loop(axes, at["TokenSink::OnToken"], at["Batch::RunOnce"])
    handles = [Patch(facecolor=COLORS[part], edgecolor=style.INK, label=label)
               for part, label in LEGEND.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    style.title(figure, "One request through Chorus")
    return figure


def _center(box):
    return box.column * COLUMN_STEP, box.row


def _top(box):
    x, y = _center(box)
    return x, y - BOX_HEIGHT / 2


def _bottom(box):
    x, y = _center(box)
    return x, y + BOX_HEIGHT / 2


def _left(box):
    x, y = _center(box)
    return x - BOX_WIDTH / 2, y


def _right(box):
    x, y = _center(box)
    return x + BOX_WIDTH / 2, y


def _draw_box(axes, box):
    x, y = _center(box)
    axes.add_patch(FancyBboxPatch(
        (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2), BOX_WIDTH, BOX_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.08", facecolor=COLORS[box.part], edgecolor=style.INK,
        linewidth=1))
    offset = 0.13 if box.note else 0
    axes.text(x, y - offset, box.name, ha="center", va="center", fontsize=9.5, fontweight="bold")
    if box.note:
        axes.text(x, y + offset + 0.03, box.note, ha="center", va="center", fontsize=8.5,
                  color="#444444")


def _across(axes, before, after):
    """From the right of one box through the gutter to the left of another."""
    (x, y), (to_x, to_y) = _right(before), _left(after)
    gutter = (x + to_x) / 2
    _arrow(axes, [(x, y), (gutter, y), (gutter, to_y), (to_x, to_y)])


def _draw_loop(axes, last, first):
    """The worker's loop: back from its last box to its first, left of the column."""
    (x, y), (to_x, to_y) = _left(last), _left(first)
    out = x - 0.2
    _arrow(axes, [(x, y - 0.18), (out, y - 0.18), (out, to_y + 0.18), (to_x, to_y + 0.18)],
           linestyle=(0, (3, 2)))
    axes.text(out - 0.08, (y + to_y) / 2 + 1.9, "over and over", rotation=90, ha="right",
              va="center", fontsize=8.5, color="#444444")


def _arrow(axes, points, linestyle="-"):
    if len(points) > 2:
        axes.plot(*zip(*points[:-1]), color=style.INK, linewidth=1.2, linestyle=linestyle)
    axes.annotate("", xy=points[-1], xytext=points[-2],
                  arrowprops={"arrowstyle": "-|>", "color": style.INK, "linewidth": 1.2,
                              "shrinkA": 0, "shrinkB": 0})
