"""From results and timings to the numbers of the tables."""
from __future__ import annotations

import dataclasses

import numpy

from chorus_eval import bootstrap


def methods_of(records):
    """Names in the order of the run."""
    return list(dict.fromkeys(record["method"] for record in records))


def score_table(records, metric):
    """(ids, methods, values [questions, methods]) of the questions that every method has."""
    methods, scores = methods_of(records), {}
    for record in records:
        scores.setdefault(record["id"], {})[record["method"]] = record["scores"][metric]
    ids = [key for key, row in scores.items() if len(row) == len(methods)]
    values = numpy.array([[scores[key][m] for m in methods] for key in ids], dtype=float)
    return ids, methods, values.reshape(len(ids), len(methods))


def summarize(records, timings, metric, run):
    """The document of summary.json. `metric` is the one that methods are compared by; `run` goes in as
    it is."""
    metrics = list(records[0]["scores"])
    _, methods, values = score_table(records, metric)
    accuracy = {m: {} for m in methods}
    for name in metrics:
        _, _, table = score_table(records, name)
        for method, found in zip(methods, bootstrap.intervals(table)):
            accuracy[method][name] = dataclasses.asdict(found)
    differences = bootstrap.paired_differences(values)
    return {
        "metric": metric,
        "questions": len(values),
        "baseline": baseline_of(methods),
        "methods": {m: {**_method(m, records, timings), "accuracy": accuracy[m]} for m in methods},
        "differences": [{"method": methods[a], "minus": methods[b], **dataclasses.asdict(found)}
                        for (a, b), found in differences.items()],
        "run": run,
    }


def baseline_of(methods):
    """What the table compares with: no fusion where it was run, else the first method."""
    return "per_prompt" if "per_prompt" in methods else methods[0]


def _mean(values):
    values = [value for value in values if value is not None]
    return float(numpy.mean(values)) if values else None


def _method(method, records, timings):
    own = [record for record in records if record["method"] == method]
    answered = [record for record in own if "error" not in record]
    document = {"questions": len(own), "failed": len(own) - len(answered),
                "consistency": _mean([record.get("consistency") for record in own]),
                "prompt_tokens": _mean([record.get("prompt_tokens") for record in answered]),
                "generated_tokens": _mean([record.get("generated_tokens") for record in answered])}
    timed = [timing for timing in timings if timing["method"] == method]
    if timed:
        document.update(_timing(timed))
    return document


def _timing(timed):
    seconds = [timing["total_seconds"] for timing in timed]
    prompt_tokens = sum(timing["prompt_tokens"] for timing in timed)
    cached_tokens = sum(timing["cached_tokens"] for timing in timed)
    return {"seconds": _mean(seconds), "seconds_median": bootstrap.percentile(seconds, 0.5),
            "seconds_95": bootstrap.percentile(seconds, 0.95),
            "first_token_seconds": _mean([timing["first_token_seconds"] for timing in timed]),
            "queue_seconds": _mean([timing["queue_seconds"] for timing in timed]),
            "model_steps": _mean([timing["model_steps"] for timing in timed]),
            "cached_share": cached_tokens / prompt_tokens if prompt_tokens else None}


def difference(summary, method, minus):
    return next(d for d in summary["differences"] if (d["method"], d["minus"]) == (method, minus))


# ---- Two runs ----

def compare(first, second, metric):
    """Two runs' records, paired by question id: {"questions", "only_in_a", "only_in_b", "rows"}. A row
    for each method that both have; where they share none, for each pair of methods."""
    tables = [score_table(records, metric) for records in (first, second)]
    rows_of = [dict(zip(ids, values)) for ids, _, values in tables]
    shared = [key for key in tables[0][0] if key in rows_of[1]]
    common = [m for m in tables[0][1] if m in tables[1][1]]
    pairs = [(m, m) for m in common] or [(a, b) for a in tables[0][1] for b in tables[1][1]]
    rows = []
    for a, b in pairs if shared else []:
        columns = [tables[0][1].index(a), tables[1][1].index(b)]
        values = [[rows_of[0][key][columns[0]], rows_of[1][key][columns[1]]] for key in shared]
        means = bootstrap.intervals(values)
        rows.append({"a": a, "b": b, "accuracy_a": means[0].mean, "accuracy_b": means[1].mean,
                     "b_minus_a": dataclasses.asdict(bootstrap.paired_differences(values)[1, 0])})
    return {"metric": metric, "questions": len(shared), "only_in_a": len(rows_of[0]) - len(shared),
            "only_in_b": len(rows_of[1]) - len(shared), "rows": rows}
