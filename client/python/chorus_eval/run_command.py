"""`chorus-eval run`: load, choose, ask, score, write."""
from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import sys

import chorus_client as chorus
from chorus_eval import data, plan, results, scoring, summary, tables
from chorus_eval.journal import Journal
from chorus_eval.output import write_outputs
from chorus_eval.paraphrasing import Rewording, make_paraphrases
from chorus_eval.runner import Connection, Runner

_SHOWN_ERRORS = 20
# Options that change no answer: left out of run.json, which is the same for the same run.
_NOT_SETTINGS = ("command", "output", "server", "tls", "tls_roots", "tls_key", "tls_chain", "token_file",
                 "concurrency", "server_timeout", "no_figures")


class BadInput(Exception):
    """The data or an option is of no use: exit code 2."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(arguments):
    """The exit code."""
    output = pathlib.Path(arguments.output)
    scorer = make_scorer(arguments)
    metric = chosen_metric(arguments, scorer)
    questions, num_bad = load(arguments)
    the_plan = make_plan(arguments)
    connection = make_connection(arguments)
    output.mkdir(parents=True, exist_ok=True)
    with Journal(output / results.JOURNAL) as journal:
        stored = results.read_json(output / results.RUN) if len(journal) else None
        runner = Runner(connection, journal, (stored or {}).get("model"))
        runner.check_model()
        document = run_document(arguments, runner.model, num_bad)
        results.write_json(output / results.RUN, document)
        questions = reword(arguments, runner, questions, output)
        chosen, num_short = choose(arguments, questions)
        document["bad_records"] = num_bad + num_short
        results.write_json(output / results.RUN, document)
        records, timings = ask(arguments, runner, the_plan, chosen, scorer)
    found = summary.summarize(records, timings, metric, document)
    write_outputs(output, records, timings, found, figures=not arguments.no_figures, note=say)
    print(tables.summary_markdown(found), end="")
    return report_end(records, document, runner, output)


def report_end(records, document, runner, output):
    failed = sum("error" in record for record in records)
    if document["bad_records"]:
        say(f"left out {document['bad_records']} malformed records")
    say(f"{len(records)} answers ({runner.num_asked} requests asked now), all in {output}")
    if failed:
        first = next(record for record in records if "error" in record)
        say(f"error: {failed} without an answer, {first['id']} by {first['method']} for one: "
            f"{first['error']['code']}: {first['error']['message']}")
    return 1 if failed else 0


# ---- What is asked ----

def load(arguments):
    """(questions, number of malformed records left out)."""
    templates = (data.load_templates(arguments.paraphrase_templates) if arguments.paraphrase_templates else ())
    questions, errors = data.load_questions(arguments.data, templates, arguments.format)
    if not arguments.make_paraphrases:
        # Before anything is asked: too few paraphrases are malformed data too.
        good, short = data.choose_wordings(questions, arguments.data, arguments.num_paraphrases, arguments.indexes)
        questions, errors = [question for question, _ in good], errors + short
    refuse(errors, arguments.skip_bad)
    if not questions:
        raise BadInput(f"{arguments.data}: no question is left")
    return questions[:arguments.limit], len(errors)


def refuse(errors, skip_bad):
    if not errors:
        return
    ordered = sorted(errors, key=lambda error: error.line)
    shown = "\n".join(str(error) for error in ordered[:_SHOWN_ERRORS])
    more = f"\n... and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    if not skip_bad:
        raise BadInput(f"{shown}{more}\n{len(errors)} malformed; --skip-bad leaves such records out")
    say(f"{shown}{more}")


def reword(arguments, runner, questions, output):
    if not arguments.make_paraphrases:
        return questions
    rewording = Rewording(seed=arguments.seed)
    if arguments.paraphrase_instruction:
        rewording = dataclasses.replace(rewording, instruction=arguments.paraphrase_instruction)
    made = make_paraphrases(runner, questions, arguments.make_paraphrases, rewording)
    results.write_lines(output / "paraphrases.jsonl",
                        [{"id": q.id, "question": q.question, "paraphrases": q.paraphrases, "answers": q.answers}
                         for q in made])
    return made


def choose(arguments, questions):
    """(items, number of questions left out)."""
    need = arguments.num_paraphrases
    chosen, errors = data.choose_wordings(questions, arguments.data, need, arguments.indexes)
    refuse(errors, arguments.skip_bad)
    if not chosen:
        raise BadInput(f"{arguments.data}: no question has enough paraphrases")
    if isinstance(arguments.weights, list):
        for question, wordings in chosen:
            if len(wordings) != len(arguments.weights):
                raise BadInput(f"--weights: {len(arguments.weights)} numbers are not valid: question {question.id} "
                               f"has {len(wordings)} prompts")
    items = [plan.Item(index, question.id, question.question, wordings, question.answers)
             for index, (question, wordings) in enumerate(chosen)]
    return items, len(errors)


def make_plan(arguments):
    few_shot = bool(arguments.few_shot)
    examples = (plan.load_examples(arguments.few_shot, arguments.example_format, arguments.num_examples)
                if few_shot else "")
    frame = plan.Frame(
        prompt_format=arguments.prompt_format or ("Q: {prompt}" if few_shot else "{prompt}"), examples=examples,
        repeat_examples=arguments.few_shot_mode == "repeated", prefix=arguments.prefix,
        suffix="\nA:" if few_shot and arguments.suffix is None else arguments.suffix,
        separator=arguments.separator, template=arguments.template, system=arguments.system)
    stop = arguments.stop if arguments.stop is not None else (["\n"] if few_shot else [])
    by_count = arguments.segment_log_bias == plan.MINUS_LOG_COUNT
    return plan.Plan(
        frame=frame, log_bias_by_count=by_count,
        fusion=chorus.Fusion(separators=arguments.separators, first_token=arguments.first_token,
                             attention_temperature=arguments.attention_temperature,
                             attention_scale=arguments.attention_scale,
                             segment_log_bias=None if by_count else arguments.segment_log_bias),
        sampling=chorus.Sampling(temperature=arguments.temperature, top_p=arguments.top_p, top_k=arguments.top_k),
        stopping=chorus.Stopping(max_new_tokens=arguments.max_new_tokens, stop=tuple(stop)), seed=arguments.seed,
        weights=arguments.weights if isinstance(arguments.weights, list) else None)


# ---- Asking ----

def confidence_weights(arguments, runner, the_plan, items, scorer):
    """{item id: the share of each wording's sampled answers that agree with its greedy one}."""
    samples = range(arguments.confidence_samples)
    requests = []
    for item in items:
        requests.append(the_plan.own_answers(item))
        requests += [the_plan.own_answers(item, arguments.confidence_temperature, sample) for sample in samples]
    outcomes = iter(runner.run("confidence", requests))
    weights = {}
    for item in items:
        greedy, sampled = next(outcomes), [next(outcomes) for _ in samples]
        if any("error" in outcome for outcome in (greedy, *sampled)):
            continue
        forms = [[scorer.form(prompt["text"]) for prompt in outcome["prompts"]] for outcome in (greedy, *sampled)]
        weights[item.id] = [scoring.confidence(forms[0][i], [own[i] for own in forms[1:]])
                            for i in range(len(item.wordings))]
    return weights


def make_jobs(arguments, runner, the_plan, items):
    """[(variant, item, requests)], methods in the command's order: the requests of an item and method,
    first that with all its wordings."""
    variants = plan.make_variants(arguments.methods, arguments.positions)
    if arguments.weights == "confidence" and any(v.method in plan.WEIGHTED for v in variants):
        weights = confidence_weights(arguments, runner, the_plan, items, confidence_scorer(arguments))
        the_plan = dataclasses.replace(the_plan, weights=weights)
    jobs = []
    for variant in variants:
        for item in items:
            # per_prompt compares its own prompts.
            times = 0 if variant.method is chorus.Method.PER_PROMPT else arguments.consistency
            left_out = range(min(times, len(item.wordings))) if len(item.wordings) > 1 else ()
            jobs.append((variant, item, [the_plan.request(item, variant),
                                         *(the_plan.request(item, variant, i) for i in left_out)]))
    return jobs


def answers_of(jobs, outcomes, scorer):
    """(records, timings) of jobs; `outcomes`: of all their requests, in order."""
    outcomes, records, timings = iter(outcomes), [], []
    for variant, item, requests in jobs:
        outcome, *others = (next(outcomes) for _ in requests)
        records.append(results.score_record(results.make_record(item, variant, requests[0], outcome, others), scorer))
        timings.append(results.make_timing(item, variant, outcome))
    return records, [timing for timing in timings if timing is not None]


def ask(arguments, runner, the_plan, items, scorer):
    """(records, timings) of every method and question, methods in the command's order."""
    jobs = make_jobs(arguments, runner, the_plan, items)
    outcomes = runner.run("answers", [request for _, _, requests in jobs for request in requests])
    return answers_of(jobs, outcomes, scorer)


# ---- Options ----

def make_scorer(arguments):
    lemmatizer = scoring.Lemmatizer(arguments.language) if arguments.lemmatize else None
    return scoring.Scorer(lemmatizer, arguments.whole_answer)


def confidence_scorer(arguments):
    """Agreement is counted after lemmatising, whatever the answers are scored by."""
    return scoring.Scorer(scoring.Lemmatizer(arguments.language), arguments.whole_answer)


def chosen_metric(arguments, scorer):
    metric = arguments.metric or ("lemma" if arguments.lemmatize else "contains")
    if metric not in scorer.metrics:
        raise BadInput(f"--metric: {metric!r} needs --lemmatize")
    return metric


def make_connection(arguments):
    tls = None
    if arguments.tls or arguments.tls_roots or arguments.tls_key or arguments.tls_chain:
        tls = chorus.Tls(root_certificates=arguments.tls_roots, private_key=arguments.tls_key,
                         certificate_chain=arguments.tls_chain)
    try:
        token = pathlib.Path(arguments.token_file).read_text().strip() if arguments.token_file else None
        connection = Connection(target=arguments.server, tls=tls, token=token,
                                server_timeout=arguments.server_timeout, idle_timeout=arguments.server_timeout,
                                concurrency=arguments.concurrency)
        connection.open().close()
    except (OSError, ValueError) as error:
        raise BadInput(str(error)) from None
    return connection


def run_document(arguments, model, num_bad):
    """run.json: what the answers come from. No time of day, no folder: the same for the same run."""
    settings = {name: value for name, value in vars(arguments).items() if name not in _NOT_SETTINGS}
    digest = hashlib.sha256(pathlib.Path(arguments.data).read_bytes()).hexdigest()
    for name in ("data", "few_shot", "paraphrase_templates"):
        settings[name] = settings[name] and pathlib.Path(settings[name]).name
    return {"data": settings["data"], "data_sha256": digest, "bad_records": num_bad, "model": model,
            "settings": settings}
