"""The numbers of attention_statistics as a table, plain or Markdown."""

from chorus_plot.attention_statistics import SINK_HEAD_SCORE, SINK_LAYER_RATIO

HEADINGS = {"logits": "Logits, before softmax", "mass": "Mass, after softmax"}


def layer_rows(statistics):
    """Header and one row a layer: over the mean of heads."""
    yield ["layer", "first", "middle", "last", "first/middle", "first-last", "spread % (mean)",
           "sink heads", "sink"]
    for layer, one in zip(statistics.layers, statistics.by_layer):
        sink_heads = [statistics.heads[head] for head in one.sink_heads]
        yield [str(layer), f"{one.first:.4f}", f"{one.middle:.4f}", f"{one.last:.4f}",
               f"{one.ratio:.2f}" + ("" if one.middle > 0 else "*"), f"{one.difference:.4f}",
               f"{one.spreads.mean():.1f}", ",".join(map(str, sink_heads)) or "-",
               "yes" if one.has_sink else "no"]


def head_rows(statistics):
    """Header and one row a head of every layer."""
    yield ["layer", "head", "sink score", "spread %", *(unit.label for unit in statistics.units),
           "sink head"]
    for layer, one in zip(statistics.layers, statistics.by_layer):
        for index, head in enumerate(statistics.heads):
            yield [str(layer), str(head), f"{one.sink_scores[index]:.4f}",
                   f"{one.spreads[index]:.1f}", *(f"{value:.4f}" for value in one.values[index]),
                   "yes" if index in one.sink_heads else "no"]


def _text(rows):
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths))
                     for row in rows)


def _markdown(rows):
    header, *body = rows
    lines = [header, ["--:"] * len(header), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
                     for line in lines)


def statistics_report(all_statistics, markdown=False, heads=False):
    """Tables of the given AttentionStatistics, with what the columns mean."""
    table = _markdown if markdown else _text
    parts = []
    for statistics in all_statistics:
        heading = f"{HEADINGS[statistics.quantity]}: mean of heads"
        parts.append(f"### {heading}\n" if markdown else heading)
        parts.append(table(layer_rows(statistics)) + "\n")
        if heads:
            heading = f"{HEADINGS[statistics.quantity]}: each head"
            parts.append(f"### {heading}\n" if markdown else heading)
            parts.append(table(head_rows(statistics)) + "\n")
    labels = [unit.label for unit in all_statistics[0].units]
    middle = ", ".join(labels[1:-1]) or "nothing: the mean of all"
    parts.append(
        f"first: {labels[0]}; middle: {middle}; last: {labels[-1]}. Layers and heads count from 0. "
        f"Sink head: first - middle above {SINK_HEAD_SCORE} (a mass never is). "
        f"Sink: first/middle above {SINK_LAYER_RATIO}; *: the middle is not positive, so the ratio "
        "says nothing.")
    return "\n".join(parts) + "\n"
