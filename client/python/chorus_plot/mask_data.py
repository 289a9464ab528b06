"""A mask from a file: of `chorus mask --json`, or of an explained request."""
import json
import pathlib
import typing

from chorus_plot import json_fields
from chorus_plot.errors import InputError, check
from chorus_plot.explain_data import load_explain_data
from chorus_plot.layout import SegmentLayout
from chorus_plot.mask_runs import MaskRun, MaskRuns, TokenRange


class MaskData(typing.NamedTuple):
    layout: SegmentLayout
    mask_runs: MaskRuns
    positions: list  # that the file's own picture shows; empty: it has none
    title: str


def load_mask(path):
    """InputError says why a file cannot be read."""
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        try:
            mask = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(mask, dict) and "row_intervals" in mask:
                return mask_from_json(mask)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {error}") from None
    data = load_explain_data(path)
    return MaskData(data.layout, data.mask_runs, [], "an explained request")


def mask_from_json(mask):
    """`mask`: the object of `chorus mask --json`."""
    length = json_fields.integer(mask, "length")
    tokens = json_fields.items(mask, "token_ids")  # of a real prompt
    original_length = json_fields.integer(mask, "original_length")
    layout = SegmentLayout(
        _ranges(mask, "segments", ""), original_length, length,
        json_fields.integer(mask, "prefix_length"),
        suffix_length=max(len(tokens) - original_length, 0))
    runs = tuple(
        MaskRun(TokenRange(json_fields.integer(run, "begin", f"row_intervals[{index}]"),
                           json_fields.integer(run, "end", f"row_intervals[{index}]")),
                _ranges(run, "keys", f"row_intervals[{index}]"))
        for index, run in enumerate(json_fields.items(mask, "row_intervals")))
    positions = json_fields.integers(mask.get("shown") or {}, "positions", "shown")
    check(positions == sorted(set(positions) & set(range(length))),
          f"shown.positions must ascend within [0, {length})")
    return MaskData(layout, MaskRuns(runs, length), positions, str(mask.get("layout", "custom")))


def _ranges(parent, key, where):
    """Pairs [begin, end]."""
    ranges = []
    for index, pair in enumerate(json_fields.items(parent, key, where)):
        path = f"{where}.{key}[{index}]".lstrip(".")
        check(isinstance(pair, list) and len(pair) == 2, f"{path} is no pair [begin, end]")
        ranges.append(TokenRange(*json_fields.integers({path: pair}, path)))
    return tuple(ranges)
