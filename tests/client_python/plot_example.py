"""A small explained request and a small answer, as the command `chorus` writes them."""
LAYERS = [0, 4]
HEADS, STEPS, UNITS = 3, 2, 6


def _range(begin, end):
    return {"begin": begin, "end": end}


def _logits(layer):
    """Any numbers, all different; the first row sees no generated key."""
    return [None if step == 0 and unit == UNITS - 1 else round(0.5 * layer - 0.25 * head + 0.125 * step * unit + unit, 6)
            for step in range(STEPS) for head in range(HEADS) for unit in range(UNITS)]


def _mass(layer):
    """Every row adds up to 1."""
    rows = []
    for step in range(STEPS):
        for head in range(HEADS):
            weights = [layer + 1, head + 1, 2, 1, 3, 0 if step == 0 else 2]
            rows += [weight / sum(weights) for weight in weights]
    return rows


# Two prefix tokens, two segments of three and two tokens around one separator, two suffix tokens. The
# caller's prompts stand in canonical order: 1, 0.
RESPONSE = {
    "finish": {"text": "Paris."},
    "layout": {
        "token_ids": list(range(11)), "tokens": [f"t{index}" for index in range(11)],
        "positions": list(range(11)), "prefix_length": 2, "original_length": 9, "prompt_length": 11,
        "length": 11, "segments": [_range(2, 5), _range(6, 9)], "prompt_indexes": [1, 0]},
    "mask_runs": [
        {"rows": _range(0, 2), "keys": [_range(0, 2)]},
        {"rows": _range(2, 5), "keys": [_range(0, 2), _range(2, 5)]},
        {"rows": _range(5, 6), "keys": []},
        {"rows": _range(6, 9), "keys": [_range(0, 2), _range(6, 9)]},
        {"rows": _range(9, 11), "keys": [_range(0, 11)]}],
    "units": [
        {"kind": "prefix", "prompt_index": 0, "num_keys": 2},
        {"kind": "segment", "prompt_index": 1, "num_keys": 3},
        {"kind": "segment", "prompt_index": 0, "num_keys": 3},
        {"kind": "separators", "prompt_index": 0, "num_keys": 1},
        {"kind": "suffix", "prompt_index": 0, "num_keys": 2},
        {"kind": "generated", "prompt_index": 0, "num_keys": 1}],
    "steps": list(range(STEPS)), "heads": list(range(HEADS)),
    "layers": [{"layer": layer, "logits": _logits(layer), "mass": _mass(layer)} for layer in LAYERS],
}

ANSWER = {
    "method": "attention", "text": "Paris", "tokens": [
        {"token_id": 7, "text": "Paris",
         "attribution": {"prefix": 0.5, "segments": [0.2, 0.2], "separators": 0, "suffix": 0.1, "generated": 0}},
        {"token_id": 42, "text": None,
         "attribution": {"prefix": 0.25, "segments": [0.25, 0.125], "separators": 0, "suffix": 0.125, "generated": 0.25}},
        {"token_id": 8, "text": "\n",
         "attribution": {"prefix": 0.25, "segments": [0.125, 0.25], "separators": 0, "suffix": 0.125, "generated": 0.25}}],
}
