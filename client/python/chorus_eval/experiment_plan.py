"""An experiment's plan: groups of settings of `chorus-eval run`, as a JSON file.

{"title": "...", "tuned_on": 80, "metric": "contains",
 "options": {"data": "qa.jsonl", "max-new-tokens": 12},
 "baselines": {"question alone": {"methods": "per_prompt", "num-paraphrases": 0}},
 "axes": {"method": {"vote": {"methods": "vote"}}, "prompts": {"1": {"num-paraphrases": 0}}},
 "groups": [{"name": "prompts", "title": "...", "axes": ["method", "prompts"]}]}

A group is every combination of its axes' values; a value is a label and the options it sets, named as on
the command line. Later ones win: the plan's, the group's, each axis's. null takes an option away; files
are relative to the plan's folder. The first `tuned_on` questions are those that settings were chosen by.

A group may also have "options"; "against": {axis: label}, the row that is compared with besides the
baselines; "agreement_over": the axis whose values' answers should agree; "figure": {"x": axis,
"lines": axis, "label": of x}; and "cost": true for a table of forward passes, rows and seconds."""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import pathlib

_FILES = ("data", "few-shot", "paraphrase-templates")
# What belongs to the experiment as a whole, not to a setting.
_NOT_OPTIONS = ("output", "server", "tls", "tls-roots", "tls-key", "tls-chain", "token-file", "concurrency",
                "server-timeout", "no-figures", "make-paraphrases", "skip-bad")


class PlanError(Exception):
    """The plan's file, and what is wrong where."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """`labels`: {axis: the value's label}; `arguments`: of `chorus-eval run`."""
    labels: dict
    arguments: argparse.Namespace


@dataclasses.dataclass(frozen=True)
class Group:
    """`against`: {axis: label}, the row among those that are equal in all other axes that the table compares
    with, besides the baselines; `agreement_over`: the axis whose values' answers are compared with one
    another; `figure`: {"x": axis, "lines": axis or none, "label": of the x axis}; `cost`: the table says what
    answers cost."""
    name: str
    title: str
    axes: tuple[str, ...]
    settings: tuple[Setting, ...]
    against: dict | None = None
    agreement_over: str | None = None
    figure: dict | None = None
    cost: bool = False


@dataclasses.dataclass(frozen=True)
class Experiment:
    title: str
    metric: str
    tuned_on: int
    baselines: tuple[Setting, ...]  # each with one label, "baseline"
    groups: tuple[Group, ...]


_PLAN = {"title": str, "metric": str, "tuned_on": int, "options": dict, "baselines": dict, "axes": dict, "groups": list}
_GROUP = {"name": str, "title": str, "axes": list, "options": dict, "against": dict, "agreement_over": str,
          "figure": dict, "cost": bool}


def _checked(value, fields, needed, where):
    """`value`, an object with fields of these types only."""
    if not isinstance(value, dict):
        raise PlanError(f"{where}: is not an object")
    for name, item in value.items():
        if name not in fields:
            raise PlanError(f"{where}: {name}: no such field; one of {', '.join(fields)}")
        if not isinstance(item, fields[name]):
            raise PlanError(f"{where}: {name}: {json.dumps(item)} is not valid: {fields[name].__name__}")
    for name in needed:
        if not value.get(name):
            raise PlanError(f"{where}: {name}: is missing")
    return value


def load(path, parser):
    """The Experiment of a file. `parser`: of chorus-eval's command line. PlanError names what is wrong."""
    path = pathlib.Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"{path}: is not JSON: {error}") from None
    _checked(document, _PLAN, ("options", "baselines", "axes", "groups"), str(path))
    reader = _Reader(path, document, parser)
    names = [group.get("name") for group in document["groups"] if isinstance(group, dict)]
    if len(set(names)) != len(names):
        raise PlanError(f"{path}: groups: a name stands twice")
    return Experiment(document.get("title", path.stem), document.get("metric", "contains"), document.get("tuned_on", 0),
                      tuple(reader.setting({"baseline": label}, [options])
                            for label, options in document["baselines"].items()),
                      tuple(reader.group(group) for group in document["groups"]))


class _Reader:
    def __init__(self, path, document, parser):
        self._path, self._document, self._parser = path, document, parser

    def group(self, group):
        where = f"{self._path}: group {group.get('name') if isinstance(group, dict) else group!r}"
        _checked(group, _GROUP, ("name", "title", "axes"), where)
        axes = [self._axis(name, where) for name in group["axes"]]
        for field, name in (("agreement_over", group.get("agreement_over")),
                            *(("figure", (group.get("figure") or {}).get(key)) for key in ("x", "lines"))):
            if name is not None and name not in group["axes"]:
                raise PlanError(f"{where}: {field}: {name!r} is none of its axes")
        for axis, label in (group.get("against") or {}).items():
            if axis not in group["axes"] or label not in self._document["axes"][axis]:
                raise PlanError(f"{where}: against: {axis} {label!r} is none of its rows")
        settings = []
        for values in itertools.product(*(axis.items() for axis in axes)):
            labels = dict(zip(group["axes"], (label for label, _ in values)))
            settings.append(self.setting(labels, [group.get("options", {}), *(options for _, options in values)]))
        return Group(group["name"], group["title"], tuple(group["axes"]), tuple(settings), group.get("against"),
                     group.get("agreement_over"), group.get("figure"), group.get("cost", False))

    def _axis(self, name, where):
        axis = self._document["axes"].get(name)
        if not isinstance(axis, dict) or not axis:
            raise PlanError(f"{where}: axes: {name!r} is not one of the plan's axes, or has no value")
        return axis

    def setting(self, labels, layers):
        where = f"{self._path}: {', '.join(f'{axis} {label}' for axis, label in labels.items())}"
        merged = {}
        for options in (self._document["options"], *layers):
            if not isinstance(options, dict):
                raise PlanError(f"{where}: {json.dumps(options)} is not an object of options")
            merged.update(options)
        return Setting(labels, self._parse(merged, where))

    def _parse(self, merged, where):
        words = ["run", "--output=."]
        for name, value in merged.items():
            if name in _NOT_OPTIONS:
                raise PlanError(f"{where}: {name}: belongs to the command line, not to the plan")
            if name in _FILES and isinstance(value, str):
                value = self._path.parent / value
            if value is True:
                words.append(f"--{name}")
            elif value is not None and value is not False:
                words += [f"--{name}={item}" for item in (value if isinstance(value, list) else [value])]
        problem = io.StringIO()
        try:
            with contextlib.redirect_stderr(problem):
                arguments = self._parser.parse_args(words)
        except SystemExit:
            raise PlanError(f"{where}: {problem.getvalue().strip().splitlines()[-1]}") from None
        positions = arguments.positions if arguments.methods[0].value == "attention" else [None]
        if len(arguments.methods) != 1 or len(positions) != 1:
            raise PlanError(f"{where}: methods, positions: one of each, a setting is one row")
        return arguments
