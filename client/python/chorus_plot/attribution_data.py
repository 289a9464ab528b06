"""Where each generated token's attention went: Attribution of a saved answer."""
import dataclasses
import json
import pathlib

import numpy as np

from chorus_plot import json_fields
from chorus_plot.errors import InputError, check

# Softmax mass of one row adds up to 1 in float32, over layers and heads whose mean is float32 too.
SUM_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class AttributionData:
    """`shares` [tokens, parts] sums to 1 in every row; `labels` [parts] name its columns."""
    shares: np.ndarray
    labels: list
    tokens: list   # [tokens] text, or the token's id where the file has no text
    answer: str


def load_attribution(path):
    """A file that `chorus ask --json --attribution` wrote."""
    try:
        answer = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return attribution_from_json(answer)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def attribution_from_json(answer):
    """`answer`: an object with `tokens`, each with `attribution` as the protocol names it."""
    tokens = json_fields.items(answer, "tokens")
    check(tokens, "tokens is empty: the answer has no token")
    parts = [_shares(token, f"tokens[{index}]") for index, token in enumerate(tokens)]
    num_prompts = len(parts[0][1])
    check(all(len(part[1]) == num_prompts for part in parts),
          "attribution.segments differs in length between tokens")
    table = np.array([[prefix, *segments, *rest] for prefix, segments, rest in parts])
    labels = ["prefix", *(f"prompt {index}" for index in range(num_prompts)), "separators",
              "suffix", "generated"]
    sums = table.sum(1)
    worst = int(np.abs(sums - 1).argmax())
    check(abs(sums[worst] - 1) <= SUM_TOLERANCE,
          f"tokens[{worst}].attribution adds up to {sums[worst]:.6f}; it must be 1")
    used = table.max(0) > 0
    return AttributionData(table[:, used], [label for label, kept in zip(labels, used) if kept],
                           [_text(token) for token in tokens], answer.get("text") or "")


def _shares(token, where):
    attribution = token.get("attribution") if isinstance(token, dict) else None
    check(attribution, f"{where}.attribution is missing: ask with --attribution")
    where = f"{where}.attribution"
    one = {key: float(json_fields.floats({key: [attribution.get(key, 0)]}, key, where, (1,))[0])
           for key in ("prefix", "separators", "suffix", "generated")}
    segments = json_fields.floats(attribution, "segments", where,
                                  (len(json_fields.items(attribution, "segments", where)),))
    return (one["prefix"], [float(value) for value in segments],
            (one["separators"], one["suffix"], one["generated"]))


def _text(token):
    return token.get("text") or f"#{token.get('token_id', '?')}"
