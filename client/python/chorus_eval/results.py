"""The files of a finished run: results.jsonl (what was answered, and how well: the same bytes for the
same run), timings.jsonl (how long it took: never the same twice)."""
from __future__ import annotations

import json
import os
import pathlib
import statistics

from chorus_eval import scoring

RESULTS, TIMINGS, SUMMARY, RUN, JOURNAL = ("results.jsonl", "timings.jsonl", "summary.json", "run.json",
                                           "journal.jsonl")


class ResultsError(Exception):
    pass


def scored_texts(record):
    """The answers of a record that count: every prompt's for per_prompt, else the one."""
    if record["method"] == "per_prompt" and record.get("prompt_answers"):
        return record["prompt_answers"]
    return [record["answer"]]


def score_record(record, scorer):
    """Adds "scores" {metric: 0..1} (per_prompt: the mean over prompts) and "consistency" (0..1, or
    None where nothing is there to compare)."""
    if "error" in record:
        record["scores"] = {metric: 0.0 for metric in scorer.metrics}
        record["consistency"] = None
        return record
    each = [scorer.scores(text, record["gold"]) for text in scored_texts(record)]
    record["scores"] = {metric: statistics.fmean(scores[metric] for scores in each)
                        for metric in scorer.metrics}
    texts = scored_texts(record)
    if len(texts) == 1:
        texts = [*texts, *record.get("left_out_answers", [])]
    record["consistency"] = scoring.agreement([scorer.form(text) for text in texts])
    return record


def make_record(item, variant, request, outcome, left_out):
    """A line of results.jsonl, before scoring; `left_out`: outcomes without one wording each."""
    record = {"index": item.index, "id": item.id, "method": variant.name, "question": item.question,
              "prompts": list(item.wordings), "gold": list(item.answers)}
    if request.fusion.weights:
        record["weights"] = [round(weight, 6) for weight in request.fusion.weights]
    if "error" in outcome:
        return {**record, "error": outcome["error"]}
    record.update(answer=outcome["text"], token_ids=outcome["token_ids"], reason=outcome["reason"],
                  prompt_tokens=outcome["usage"]["prompt_tokens"],
                  generated_tokens=outcome["usage"]["generated_tokens"])
    if "prompts" in outcome:
        record["prompt_answers"] = [prompt["text"] for prompt in outcome["prompts"]]
    if "tally" in outcome:
        record["tally"] = outcome["tally"]
    if left_out:
        record["left_out_answers"] = [other["text"] for other in left_out if "text" in other]
    return record


def make_timing(item, variant, outcome):
    """A line of timings.jsonl; None for a request without an answer."""
    if "error" in outcome:
        return None
    usage = outcome["usage"]
    return {"index": item.index, "id": item.id, "method": variant.name, **outcome["timing"],
            "prompt_tokens": usage["prompt_tokens"], "cached_tokens": usage["cached_tokens"],
            "generated_tokens": usage["generated_tokens"], "model_steps": usage["model_steps"],
            "worker": outcome["worker"]}


# ---- Files ----

def write_text(path, text):
    """All of it or nothing, whenever the process is killed."""
    path = pathlib.Path(path)
    scratch = path.with_name(f".{path.name}.new")
    with open(scratch, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def write_lines(path, records):
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def write_json(path, document):
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def read_json(path):
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: {error}") from None


def results_path(run):
    """`run`: the folder of a run, or its results.jsonl."""
    path = pathlib.Path(run)
    path = path / RESULTS if path.is_dir() else path
    if not path.is_file():
        raise ResultsError(f"{path}: no such file; a run that has ended writes it")
    return path


def read_results(run):
    """The records of a run's results.jsonl. ResultsError names a bad line and what it lacks."""
    path, records = results_path(run), []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ResultsError(f"{path}:{number}: is not JSON: {error}") from None
        needed = ("index", "id", "method", "gold") + (() if "error" in record else ("answer",))
        for field in needed:
            if field not in record:
                raise ResultsError(f"{path}:{number}: {field}: is missing: not a line of chorus-eval's results")
        records.append(record)
    if not records:
        raise ResultsError(f"{path}: holds no result")
    return records


def read_timings(run):
    path = results_path(run).with_name(TIMINGS)
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
