"""Which positions of a long sequence a picture shows."""
from chorus_plot.errors import check

MIN_POSITIONS = 5  # both ends of the first and last segment, and where generation starts
FULL_LENGTH = 54   # up to here a picture shows every position unless told otherwise


def sampled_positions(layout, max_positions):
    """At most `max_positions` positions of `layout` that show its structure, ascending.

    By priority: ends of the prefix and of segments; where generation starts; the thirds of
    segments; the next four generated positions; the last one. Below the limit the largest gaps are
    halved; above it the lowest priority goes first and, within one, the latest position.
    """
    check(max_positions >= MIN_POSITIONS,
          f"max_positions is {max_positions}; at least {MIN_POSITIONS}")
    kept = dict.fromkeys(_candidates(layout, max_positions))  # ordered, each position once
    positions = sorted(list(kept)[:max_positions])
    while len(positions) < max_positions:
        gaps = [after - before for before, after in zip(positions, positions[1:])]
        if not gaps or max(gaps) <= 1:
            break
        at = gaps.index(max(gaps))
        positions.insert(at + 1, (positions[at] + positions[at + 1]) // 2)
    return positions


def _candidates(layout, max_positions):
    """Positions, most important first; what must never be left out comes first of all."""
    start = layout.original_length
    has_fused = layout.has_fused_rows
    room = max_positions - has_fused
    if has_fused:
        yield start
    prefix = sorted({0, layout.prefix_length - 1}) if layout.prefix_length else []
    if room - len(prefix) >= MIN_POSITIONS - 1:  # the first and the last segment come before it
        yield from prefix
        room -= len(prefix)
    segments = _spread(layout.segments, room)
    for begin, end in segments:
        yield from (begin, end - 1)
    if has_fused:
        yield start - 1
    for begin, end in segments:
        length = end - begin
        if length > 4:
            yield from (begin + length // 3, begin + 2 * length // 3)
    yield from range(start + 1, min(start + 5, layout.length))
    yield layout.length - 1


def _spread(segments, room):
    """All segments, or as many as have their ends in `room` >= 4 positions, evenly, with the first
    and the last. As core/segment/sampled_positions.cc, rounding included."""
    if sum(min(end - begin, 2) for begin, end in segments) <= room:
        return segments
    last_kept, last = room // 2 - 1, len(segments) - 1
    return [segments[(2 * index * last + last_kept) // (2 * last_kept)]
            for index in range(last_kept + 1)]


def position_labels(layout, positions):
    """`S2 48` at a segment's first token, `E2 94` at its last, `G0 238` where generation starts."""
    marks = {}
    for number, (begin, end) in enumerate(layout.segments, 1):
        marks[end - 1] = f"E{number}"
        marks[begin] = f"S{number}"
    if layout.has_fused_rows:
        marks[layout.original_length] = "G0"
    return [f"{marks[position]} {position}" if position in marks else str(position)
            for position in positions]
