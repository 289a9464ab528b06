"""The command line of chorus-eval."""
from __future__ import annotations

import argparse
import math

from chorus_client import types as t
from chorus_eval import experiment_plan, plan, scoring

RUN_HELP = """\
Asks every question of a data set by every method, and writes tables, pictures and a report.

  chorus-eval --data questions.jsonl --output results
  chorus-eval --data questions.csv --methods attention,logit_mean,per_prompt --num-paraphrases 3 \\
      --few-shot examples.jsonl --max-new-tokens 12 --lemmatize --output results
  chorus-eval rescore results --metric f1
  chorus-eval compare results other-results
  chorus-eval experiment --plan plan.json --output results
"""
RUN_EPILOG = """\
Data, JSONL: a line a question:
  {"id": "fr", "question": "What is the capital of France?",
   "paraphrases": ["Name the capital of France."], "answers": ["Paris"]}
id is optional; "answer": "Paris" does for one answer. CSV: a header with question, answers (or
answer), and paraphrases (or paraphrase1, paraphrase2, ...), id; several texts in a cell are a JSON
list, or have | between them. A malformed record is named by line and field, and nothing is asked;
with --skip-bad it is left out and counted.

--output gets
  results.jsonl  a line a question and method, by method and question: answer, scores. The same bytes
                 for the same run, however often it was killed and begun again
  timings.jsonl  how long each answer took, and what came from the segment cache: never the same twice
  summary.json, summary.md, report.html (opens without a network), figures/*.svg and *.png
  journal.jsonl  every answer as it came. A killed run, begun again by the same command, goes on from
                 it; a run with other options asks only what it does not hold
  run.json, paraphrases.jsonl (with --make-paraphrases: a data set for --data)

Exit code: 0 done; 1 a question got no answer, or the server failed; 2 bad options or data.
"""

EXPERIMENT_HELP = """\
Asks every question of a data set by every setting of a plan: methods, prompts, frames, in groups.

  chorus-eval experiment --plan tests/data/experiment.json --output results
  chorus-eval experiment --summary results/experiment.json --output redrawn

--output gets experiment.md (tables), figures/*.svg, experiment.json (all their numbers), results.jsonl
(a line a setting and question), and journal.jsonl: a killed experiment goes on by the same command, and
what two settings have in common is asked once.
"""


def names_of(enum):
    def parse(text):
        values = []
        for name in text.split(","):
            try:
                values.append(enum(name.strip().lower()))
            except ValueError:
                raise argparse.ArgumentTypeError(f"{name.strip()!r} is not valid: one of "
                                                 + ", ".join(v.value for v in enum)) from None
        if len(set(values)) != len(values):
            raise argparse.ArgumentTypeError(f"{text!r} is not valid: a name stands twice")
        return values
    return parse


def one_of(enum):
    def parse(text):
        values = names_of(enum)(text)
        if len(values) != 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not valid: one of " + ", ".join(v.value for v in enum))
        return values[0]
    return parse


def count(least):
    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not valid: a whole number, {least} or more")
        return value
    return parse


def indexes(text):
    values = [count(0)(part.strip()) for part in text.split(",")]
    if len(set(values)) != len(values):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: an index stands twice")
    return values


def positive_seconds(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: seconds above 0")
    return value


def weights(text):
    if text in ("equal", "confidence"):
        return text
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 0 or not math.isfinite(sum(values)) or sum(values) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: equal, confidence, or one number of 0 or more "
                                         "for each prompt, not all 0")
    return values


def log_bias(text):
    if text.replace(" ", "").lower() == plan.MINUS_LOG_COUNT.lower():
        return plan.MINUS_LOG_COUNT
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: a finite number, or {plan.MINUS_LOG_COUNT}")
    return value


def text_option(text):
    """\\n, \\t and \\\\ are what they are in C; everything else is as it is."""
    return (text.replace("\\\\", "\0").replace("\\n", "\n").replace("\\t", "\t").replace("\0", "\\"))


def containing(*placeholders):
    def parse(text):
        for placeholder in placeholders:
            if placeholder not in text:
                raise argparse.ArgumentTypeError(f"{text!r} is not valid: {placeholder} must be in it")
        return text_option(text)
    return parse


def add_scoring(parser):
    group = parser.add_argument_group("scoring")
    group.add_argument("--metric", choices=scoring.METRICS,
                       help="what methods are compared by; all are reported. Default: contains, or lemma with "
                            "--lemmatize. exact: equal but for case, punctuation and articles; contains: a gold "
                            "answer is contained, ignoring case; lemma: its lemmas are; f1: of the words")
    group.add_argument("--lemmatize", action="store_true",
                       help="score lemma too, and let answers agree by their lemmas (simplemma's dictionary, part "
                            "of its package)")
    group.add_argument("--language", default="en", metavar="CODE", help="of the lemmas; default en")
    group.add_argument("--whole-answer", action="store_true",
                       help="score all of an answer; default: its first line that is not empty")
    group.add_argument("--no-figures", action="store_true", help="draw nothing")


def _add_server(parser):
    group = parser.add_argument_group("server")
    group.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help="default 127.0.0.1:50051")
    group.add_argument("--tls", action="store_true", help="encrypt, trusting the roots that gRPC brings")
    group.add_argument("--tls-roots", metavar="PEM", help="trust these roots instead")
    group.add_argument("--tls-key", metavar="PEM", help="own key, for mutual TLS")
    group.add_argument("--tls-chain", metavar="PEM", help="own certificates, for mutual TLS")
    group.add_argument("--token-file", metavar="FILE", help="a bearer token, sent with every call")
    group.add_argument("--concurrency", type=count(1), default=16, metavar="N", help="requests at a time; default 16")
    group.add_argument("--server-timeout", type=positive_seconds, default=300.0, metavar="SECONDS",
                       help="how long to wait for a server that is away, or says nothing; default 300")


def _add_data(parser):
    group = parser.add_argument_group("data")
    group.add_argument("--data", required=True, metavar="FILE", help=".jsonl or .csv: see below")
    group.add_argument("--format", choices=("jsonl", "csv"), help="whatever the file's name ends in")
    group.add_argument("--limit", type=count(1), metavar="N", help="the first N questions only")
    group.add_argument("--skip-bad", action="store_true", help="leave malformed records out and count them")
    group.add_argument("--paraphrase-templates", metavar="FILE",
                       help="a template a line with {question} in it: each adds a paraphrase to every question")
    group.add_argument("--make-paraphrases", type=count(1), metavar="K",
                       help="let the model reword a question until it has K paraphrases")
    group.add_argument("--paraphrase-instruction", type=containing("{question}"), metavar="TEXT",
                       help="how the model is asked to, without a template; default: three examples, then the "
                            "question")
    choice = group.add_mutually_exclusive_group()
    choice.add_argument("--num-paraphrases", type=count(0), metavar="K",
                        help="the first K paraphrases beside the question; 0: the question alone. Default: all, "
                             "at least one")
    choice.add_argument("--indexes", type=indexes, metavar="0,1,2",
                        help="these wordings, in this order: 0 is the question, 1 its first paraphrase")


def _add_prompt(parser):
    group = parser.add_argument_group("prompt", r"In texts \n is a new line, \t a tab, \\ a backslash.")
    group.add_argument("--few-shot", metavar="FILE",
                       help='examples before the question: JSONL of {"question", "answer"}. Makes the defaults '
                            r'--prompt-format="Q: {prompt}" --suffix="\nA:" --stop="\n"')
    group.add_argument("--num-examples", type=count(1), metavar="N", help="the first N of them; default: all")
    group.add_argument("--few-shot-mode", choices=("shared", "repeated"), default="shared",
                       help="examples once, before all prompts (default), or in every prompt")
    group.add_argument("--example-format", type=containing("{question}", "{answer}"),
                       default="Q: {question}\nA: {answer}\n\n", metavar="TEXT",
                       help=r'default "Q: {question}\nA: {answer}\n\n"')
    group.add_argument("--prompt-format", type=containing("{prompt}"), metavar="TEXT",
                       help='default "{prompt}": the wording as it is')
    for name, words in (("prefix", "before all prompts, seen by each"), ("suffix", "after all prompts, sees all"),
                        ("separator", "between prompts (attention only)"), ("system", "the template's system text")):
        group.add_argument(f"--{name}", type=text_option, metavar="TEXT", help=f"{words}; default: the server's")
    group.add_argument("--template", type=one_of(t.Template), metavar="NAME", help="auto, none, chatml, llama3")


def _add_methods(parser):
    group = parser.add_argument_group("methods")
    group.add_argument("--methods", type=names_of(t.Method), default=list(t.Method), metavar="NAME,...",
                       help="of " + ", ".join(m.value for m in t.Method) + "; default: all")
    group.add_argument("--positions", type=names_of(t.Positions), default=[t.Positions.OVERLAPPING],
                       metavar="NAME,...", help="of attention: overlapping (default), sequential, or both, each a "
                                                "row of the table")
    group.add_argument("--separators", type=one_of(t.Separators), metavar="NAME", help="isolated or attached")
    group.add_argument("--first-token", type=one_of(t.FirstToken), metavar="NAME", help="fuse_first or last_segment")
    for name in ("attention-temperature", "attention-scale"):
        group.add_argument(f"--{name}", type=float, metavar="X", help="of attention; default: the server's")
    group.add_argument("--segment-log-bias", type=log_bias, metavar="X",
                       help=f"of attention; {plan.MINUS_LOG_COUNT}: minus the logarithm of the number of prompts, so "
                            "that N equal ones weigh as one. Default: the server's")
    group.add_argument("--weights", type=weights, default="equal", metavar="equal|confidence|W,...",
                       help="of the prompts, for logit_mean and prob_mean. confidence: the share of sampled answers "
                            "to a wording that agree with its greedy one; equal where that is 0 for all")
    group.add_argument("--confidence-samples", type=count(1), default=5, metavar="N", help="default 5")
    group.add_argument("--confidence-temperature", type=float, default=0.7, metavar="T", help="default 0.7")
    group.add_argument("--consistency", type=count(0), default=0, metavar="N",
                       help="ask each question N times more, each time without another one of its wordings: how "
                            "often the answers agree is the method's consistency. Default 0: only per_prompt, "
                            "whose prompts' answers are compared, has one")


def _add_generation(parser):
    group = parser.add_argument_group("answers")
    group.add_argument("--max-new-tokens", type=count(1), default=32, metavar="N", help="default 32")
    group.add_argument("--stop", type=text_option, action="append", metavar="TEXT",
                       help="ends an answer; may be given several times")
    group.add_argument("--temperature", type=float, metavar="T", help="default: greedy")
    group.add_argument("--top-p", type=float, metavar="P", help="in (0, 1]; default 1")
    group.add_argument("--top-k", type=int, metavar="K", help="default 0: off")
    group.add_argument("--seed", type=count(0), default=0, metavar="N",
                       help="of everything drawn, each question with one of its own; default 0")


def _add_experiment(commands, formatter):
    experiment = commands.add_parser(
        "experiment", help="ask a data set by many settings", description=EXPERIMENT_HELP,
        epilog=f"The plan's form:\n{experiment_plan.__doc__}", formatter_class=formatter)
    experiment.add_argument("--output", required=True, metavar="FOLDER", help="made if it is not there")
    source = experiment.add_mutually_exclusive_group(required=True)
    source.add_argument("--plan", metavar="FILE", help="JSON: see below")
    source.add_argument("--summary", metavar="FILE",
                        help="an experiment.json: its tables and figures again, without a server")
    experiment.add_argument("--groups", type=lambda text: text.split(","), metavar="NAME,...",
                            help="only these of the plan's groups; default: all")
    experiment.add_argument("--limit", type=count(1), metavar="N", help="the first N questions only")
    experiment.add_argument("--seconds", metavar="FILE",
                            help='JSON, {"label": seconds a question}: measured elsewhere, for the cost table and '
                                 "figure. Those of an experiment itself say little: settings share a warm cache")
    experiment.add_argument("--no-figures", action="store_true", help="draw nothing")
    _add_server(experiment)


def make_parser():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="chorus-eval", description=RUN_HELP, formatter_class=formatter,
        epilog="`run` is what happens without a command's name. chorus-eval COMMAND --help tells more.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="ask a data set (the default)", description=RUN_HELP, epilog=RUN_EPILOG,
                              formatter_class=formatter)
    run.add_argument("--output", required=True, metavar="FOLDER", help="made if it is not there; see below")
    for add in (_add_data, _add_methods, _add_prompt, _add_generation, add_scoring, _add_server):
        add(run)

    _add_experiment(commands, formatter)
    rescore = commands.add_parser(
        "rescore", help="score stored answers anew, without a server", formatter_class=formatter,
        description="Scores the stored answers of a run anew, without a server: another metric, lemmas.\n\n"
                    "  chorus-eval rescore results --lemmatize\n"
                    "  chorus-eval rescore results --metric f1 --output results-f1")
    rescore.add_argument("run", metavar="RUN", help="folder of a run, or its results.jsonl")
    rescore.add_argument("--output", metavar="FOLDER", help="default: in place")
    add_scoring(rescore)

    compare = commands.add_parser(
        "compare", help="compare two runs", formatter_class=formatter,
        description="Compares two runs question by question: methods that both have, else each with each.\n"
                    "The difference has a paired 95 % bootstrap interval.\n\n  chorus-eval compare a b --metric exact")
    compare.add_argument("a", metavar="A", help="folder of a run, or its results.jsonl")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--metric", choices=scoring.METRICS, help="default: contains, or lemma if both have it")
    compare.add_argument("--json", action="store_true", help="JSON instead of Markdown")
    return parser
