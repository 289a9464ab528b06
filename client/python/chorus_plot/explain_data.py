"""What Explain says of one request, from JSON, the RPC's message or a saved file."""
import dataclasses
import json
import pathlib
import zipfile

import numpy as np

from chorus_plot import json_fields
from chorus_plot.errors import InputError, check
from chorus_plot.layout import SegmentLayout
from chorus_plot.mask_runs import MaskRun, MaskRuns, TokenRange

FORMAT = 1
QUANTITIES = ("logits", "mass")


@dataclasses.dataclass(frozen=True)
class Unit:
    """Keys that are counted together."""
    kind: str          # prefix, segment, separators, suffix, generated
    prompt_index: int  # of a segment
    num_keys: int

    @property
    def label(self):
        return f"prompt {self.prompt_index}" if self.kind == "segment" else self.kind


@dataclasses.dataclass(frozen=True)
class ExplainData:
    """One ExplainResponse. `layers`, `heads` and `steps` count from 0, as the protocol does."""
    layout: SegmentLayout
    mask_runs: MaskRuns
    tokens: list         # [length] text of each token of the fused sequence
    units: list          # of Unit
    layers: list
    heads: list
    steps: list          # generated tokens whose rows were looked at
    logits: np.ndarray   # [layers, steps, heads, units] float32, NaN where a row sees no key of it
    mass: np.ndarray     # [layers, steps, heads, units] float32
    response: dict       # the rest of the response as it came, without the two arrays
    answer: str = ""

    @classmethod
    def from_json(cls, response, logits=None, mass=None):
        """`response`: ExplainResponse with the protocol's field names. The arrays, if given, stand
        for those of response["layers"]. InputError names what is missing or does not fit."""
        units = [_unit(unit, f"units[{index}]")
                 for index, unit in enumerate(json_fields.items(response, "units"))]
        layers = json_fields.items(response, "layers")
        check(layers, "layers is empty: is this the output of `chorus explain --json`?")
        heads = json_fields.integers(response, "heads")
        steps = json_fields.integers(response, "steps")
        shape = (len(steps), len(heads), len(units))
        check(min(shape) > 0, f"there are {shape[0]} steps, {shape[1]} heads and {shape[2]} units; "
              "at least one of each is needed")
        if logits is None:
            logits, mass = (np.stack([json_fields.floats(layer, key, f"layers[{index}]", shape)
                                      for index, layer in enumerate(layers)])
                            for key in QUANTITIES)
        check(logits.shape == mass.shape == (len(layers), *shape),
              f"logits is {logits.shape} and mass {mass.shape}; both must be "
              f"{(len(layers), *shape)}")
        layout = _layout(json_fields.member(response, "layout", ""))
        return cls(
            layout=layout, mask_runs=_mask_runs(response, layout),
            tokens=json_fields.items(response["layout"], "tokens", "layout"), units=units,
            layers=[json_fields.integer(layer, "layer", f"layers[{index}]")
                    for index, layer in enumerate(layers)],
            heads=heads, steps=steps, logits=logits, mass=mass, response=_without_arrays(response),
            answer=(response.get("finish") or {}).get("text", ""))

    def quantity(self, name):
        """"logits" or "mass"."""
        return {"logits": self.logits, "mass": self.mass}[name]

    def save(self, path):
        """Everything, as npz: two arrays and the rest of the response as JSON text."""
        with open(path, "wb") as file:
            np.savez_compressed(file, format=FORMAT, logits=self.logits, mass=self.mass,
                                response=np.array(json.dumps(self.response)))


def load_explain_data(path):
    """A file that `save` or `chorus explain --json` wrote. InputError says why it cannot be read."""
    path = pathlib.Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as saved:
                check("format" in saved and int(saved["format"]) == FORMAT,
                      f"{path} was not saved by this version of chorus-plot")
                return ExplainData.from_json(json.loads(str(saved["response"])), saved["logits"],
                                             saved["mass"])
        return ExplainData.from_json(json.loads(path.read_text(encoding="utf-8")))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _unit(unit, where):
    return Unit(json_fields.name(unit, "kind", "UNIT_KIND_", where),
                json_fields.integer(unit, "prompt_index", where),
                json_fields.integer(unit, "num_keys", where))


def _range(value, where):
    return TokenRange(json_fields.integer(value, "begin", where),
                      json_fields.integer(value, "end", where))


def _ranges(parent, key, where):
    return tuple(_range(value, f"{where}{key}[{index}]")
                 for index, value in enumerate(json_fields.items(parent, key, where)))


def _layout(layout):
    original_length = json_fields.integer(layout, "original_length", "layout")
    prompt_length = json_fields.integer(layout, "prompt_length", "layout", original_length)
    return SegmentLayout(_ranges(layout, "segments", "layout."), original_length,
                         json_fields.integer(layout, "length", "layout"),
                         json_fields.integer(layout, "prefix_length", "layout"),
                         suffix_length=prompt_length - original_length)


def _mask_runs(response, layout):
    runs = json_fields.items(response, "mask_runs")
    if not runs:
        return layout.runs()
    return MaskRuns(tuple(MaskRun(_range(json_fields.member(run, "rows", f"mask_runs[{index}]"),
                                         f"mask_runs[{index}].rows"),
                                  _ranges(run, "keys", f"mask_runs[{index}]."))
                          for index, run in enumerate(runs)), layout.length)


def _without_arrays(response):
    rest = dict(response)
    rest["layers"] = [{key: value for key, value in layer.items() if key not in QUANTITIES}
                      for layer in response["layers"]]
    return rest
