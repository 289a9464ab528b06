"""`chorus-eval experiment`: every setting of a plan over one data set, through one journal; then tables and
figures, which can be made again from the summary alone."""
from __future__ import annotations

import dataclasses
import pathlib

import numpy

from chorus_eval import (bootstrap, experiment_figures, experiment_plan, experiment_statistics, experiment_tables,
                         options, results, run_command, scoring)
from chorus_eval.journal import Journal
from chorus_eval.runner import Runner

SUMMARY, TABLES = "experiment.json", "experiment.md"


def experiment(arguments):
    """The exit code."""
    output = pathlib.Path(arguments.output)
    if arguments.summary:
        found = results.read_json(arguments.summary)
        if not isinstance(found, dict) or "comparisons" not in found:
            raise run_command.BadInput(f"--summary: {arguments.summary} is not the {SUMMARY} of an experiment")
        output.mkdir(parents=True, exist_ok=True)
        failed = 0
    else:
        found, failed = _run(arguments, output)
    if arguments.seconds:
        experiment_tables.add_seconds(found, results.read_json(arguments.seconds) or {})
    results.write_json(output / SUMMARY, found)
    results.write_text(output / TABLES, experiment_tables.markdown(found))
    if not arguments.no_figures:
        experiment_figures.write(output / "figures", found)
    print(experiment_tables.markdown(found), end="")
    if failed:
        run_command.say(f"error: {failed} answers are missing; they count as wrong")
    return 1 if failed else 0


def _run(arguments, output):
    """(summary, number of requests without an answer)."""
    the_plan = experiment_plan.load(arguments.plan, options.make_parser())
    groups = _chosen(the_plan.groups, arguments.groups)
    settings = [*the_plan.baselines, *(setting for group in groups for setting in group.settings)]
    for setting in settings:
        setting.arguments.limit = arguments.limit or setting.arguments.limit
    # One scorer for all: rows of a table are scored alike.
    scorer = run_command.make_scorer(settings[0].arguments)
    if the_plan.metric not in scorer.metrics:
        raise run_command.BadInput(f"{arguments.plan}: metric: {the_plan.metric!r} is not one of {scorer.metrics}; "
                                   "lemma needs the option lemmatize")
    connection = run_command.make_connection(arguments)
    output.mkdir(parents=True, exist_ok=True)
    with Journal(output / results.JOURNAL) as journal:
        stored = results.read_json(output / results.RUN) if len(journal) else None
        runner = Runner(connection, journal, (stored or {}).get("model"))
        runner.check_model()
        results.write_json(output / results.RUN, {"plan": pathlib.Path(arguments.plan).name, "model": runner.model})
        measured = _ask(runner, settings, scorer)
        with connection.open() as client:
            _add_costs(client, settings, measured)
        model = runner.model
    _check_same_questions(arguments.plan, settings, measured)
    results.write_lines(output / results.RESULTS, _lines(the_plan.baselines, groups, measured))
    return _summarize(the_plan, groups, measured, model), sum("error" in r for m in measured for r in m.records)


def _chosen(groups, names):
    unknown = sorted(set(names or ()) - {group.name for group in groups})
    if unknown:
        raise run_command.BadInput(f"--groups: {unknown[0]!r} is not valid: of "
                                   + ", ".join(group.name for group in groups))
    return [group for group in groups if not names or group.name in names]


@dataclasses.dataclass
class Measured:
    """What came of one setting. `key` is the same for settings that ask the same."""
    key: int
    records: list
    timings: list
    num_prompts: float
    costs: dict = dataclasses.field(default_factory=dict)

    def values(self, metric):
        return [record["scores"][metric] for record in self.records]


def _ask(runner, settings, scorer):
    """[Measured], one a setting. All requests go as one list, so that the rest of the time is known."""
    jobs = []
    for setting in settings:
        chosen, _ = run_command.choose(setting.arguments, run_command.load(setting.arguments)[0])
        jobs.append(run_command.make_jobs(setting.arguments, runner, run_command.make_plan(setting.arguments), chosen))
    outcomes = iter(runner.run("answers", [request for own in jobs for _, _, requests in own for request in requests]))
    measured, keys = [], {}
    for own in jobs:
        count = sum(len(requests) for _, _, requests in own)
        records, timings = run_command.answers_of(own, [next(outcomes) for _ in range(count)], scorer)
        asked = tuple(repr(requests[0]) for _, _, requests in own)
        prompts = float(numpy.mean([len(record["prompts"]) for record in records]))
        measured.append(Measured(keys.setdefault(asked, len(keys)), records, timings, prompts))
    return measured


def _check_same_questions(path, settings, measured):
    for setting, own in zip(settings, measured):
        if [r["id"] for r in own.records] != [r["id"] for r in measured[0].records]:
            raise run_command.BadInput(f"{path}: {', '.join(setting.labels.values())}: asks other questions than the "
                                       "first baseline: differences would not be paired")


def _lines(baselines, groups, measured):
    rows = [("baselines", setting) for setting in baselines]
    rows += [(group.name, setting) for group in groups for setting in group.settings]
    return [{"group": group, "setting": setting.labels, **record}
            for (group, setting), own in zip(rows, measured) for record in own.records]


# ---- Costs ----

def cost_of(method, num_prompts, timing, prefix_tokens):
    """What an answer costs, whatever the segment cache held:
      passes         forward passes of an implementation that runs one prompt at a time and keeps keys and
                     values: a token of an answer is a pass; a fused logit needs one of every prompt
      rows           token rows through the model with the shared prefix read once, as Chorus does
      rows_unshared  the same with the prefix read once for every prompt; None if its length is not known"""
    generated, prompts = timing["generated_tokens"], round(num_prompts)
    if method == "attention":
        # The last token of an answer is never read again.
        passes, decoded, repeated = generated, generated - 1, 0
    elif method in ("per_prompt", "vote"):
        passes, decoded, repeated = generated, generated - prompts, prompts - 1
    else:
        passes, decoded, repeated = prompts * generated, prompts * (generated - 1), prompts - 1
    rows = timing["prompt_tokens"] + decoded
    unshared = rows if not repeated else None if prefix_tokens is None else rows + repeated * prefix_tokens
    return {"passes": passes, "rows": rows, "rows_unshared": unshared}


def _add_costs(client, settings, measured):
    lengths = {}
    for setting, own in zip(settings, measured):
        frame = run_command.make_plan(setting.arguments).frame
        prefix = frame.text_prompt(["x"]).prefix
        if prefix is not None and prefix not in lengths:
            lengths[prefix] = len(client.tokenize(prefix, recognize_special=True).token_ids)
        method = setting.arguments.methods[0].value
        each = [cost_of(method, own.num_prompts, timing, lengths.get(prefix)) for timing in own.timings]
        for name in each[0] if each else ():
            values = [cost[name] for cost in each]
            own.costs[name] = None if None in values else float(numpy.mean(values))


# ---- Summary ----

def _summarize(the_plan, groups, measured, model):
    metric, tuned_on, names = the_plan.metric, the_plan.tuned_on, [s.labels["baseline"] for s in the_plan.baselines]
    values = numpy.array([own.values(metric) for own in measured], dtype=float).T
    others = [dict(enumerate(names)) for _ in names]  # of each setting: {index of another: its name}
    for group in groups:
        first = len(others)
        others += [dict(enumerate(names)) | _against(group, setting, first) for setting in group.settings]
    comparisons = experiment_statistics.Comparisons(values, tuned_on, [own.key for own in measured], others)
    rows = [{**comparisons.row(index), **_measures(own)} for index, own in enumerate(measured)]
    documents, position = [], len(names)
    for group in groups:
        own = slice(position, position + len(group.settings))
        position = own.stop
        documents.append(_group(group, measured[own], rows[own]))
    return {"title": the_plan.title, "metric": metric, "model": model, "questions": len(values), "tuned_on": tuned_on,
            "comparisons": comparisons.count, "settings": len({own.key for own in measured}),
            "baselines": dict(zip(names, rows)), "groups": documents}


def _against(group, setting, first):
    """{index: name} of the row that a group compares this setting with; `first`: its first row's index."""
    if not group.against:
        return {}
    wanted = {**setting.labels, **group.against}
    [index] = [i for i, other in enumerate(group.settings) if other.labels == wanted]
    return {} if wanted == setting.labels else {first + index: "against"}


def _measures(own):
    """What a row says besides its intervals."""
    found = [record["consistency"] for record in own.records if record["consistency"] is not None]
    row = {"other_metrics": {m: round(float(numpy.mean(own.values(m))), 5) for m in own.records[0]["scores"]},
           "prompts": own.num_prompts, "consistency": round(float(numpy.mean(found)), 5) if found else None,
           "failed": sum("error" in record for record in own.records)}
    return row | {name: None if value is None else round(value, 3) for name, value in own.costs.items()}


def _group(group, measured, rows):
    document = {"name": group.name, "title": group.title, "axes": list(group.axes), "figure": group.figure,
                "against": group.against, "cost": group.cost, "rows": [{"labels": setting.labels, **row}
                                             for setting, row in zip(group.settings, rows)]}
    if group.agreement_over:
        document["agreement"] = _agreement(group, measured)
    return document


def _agreement(group, measured):
    """Of each combination of the other axes: how often the answers agree over the values of one axis."""
    others = [axis for axis in group.axes if axis != group.agreement_over]
    form = scoring.Scorer(scoring.Lemmatizer(group.settings[0].arguments.language)).form
    cells = {}
    for setting, own in zip(group.settings, measured):
        cells.setdefault(tuple(setting.labels[axis] for axis in others), []).append(own)
    rows = []
    for labels, cell in cells.items():
        shares = [scoring.agreement([form(text) for record in records for text in results.scored_texts(record)])
                  for records in zip(*(own.records for own in cell)) if not any("error" in r for r in records)]
        [found] = bootstrap.intervals([[share] for share in shares])
        rows.append({"labels": dict(zip(others, labels)), **experiment_statistics.interval(found)})
    return {"over": group.agreement_over, "rows": rows}
