"""Several tasks that word one question differently, as the paraphrases of one request.

lm_eval hands a model the requests of all its tasks in one call, each with its task's name and the
number of its document. Tasks whose names differ only in what the regular expression
`paraphrase_tasks` matches are wordings of one: their requests for the same document and choice are
asked as one, and its answer is the answer of each.
"""
from __future__ import annotations

import collections
import dataclasses
import logging

from lm_eval.api.model import hash_args

from chorus_lm_eval.errors import OptionError

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Question:
    """Requests that are asked as one, in the order of their tasks. `indexes`: where each stands in
    lm_eval's list. `repeat`: how often the same was asked before."""
    indexes: tuple[int, ...]
    instances: tuple
    repeat: int


class Questions:
    """The requests of one call of lm_eval, as questions; and their answers, in lm_eval's order.

    lm_eval's response cache knows an answer by one request alone. A run that is killed between the
    wordings of a question would leave some of them without the others, so the answer is noted for each
    wording once more before any of them is stored: then all of them are found again, or none."""

    def __init__(self, kind, instances, pattern, cache_hook):
        """`kind`: lm_eval's name for the requests. `pattern`: see group_wordings."""
        self._kind, self._note, self._hook = kind, f"chorus wordings {kind}", cache_hook
        self.answers = [None if pattern is None else self._recall(instance) for instance in instances]
        self._asked = [index for index, answer in enumerate(self.answers) if answer is None]
        self.num_recalled = len(instances) - len(self._asked)
        self.open = group_wordings([instances[index] for index in self._asked], pattern)

    def _recall(self, instance):
        cache = self._hook.dbdict
        return None if cache is None else cache.get(hash_args(self._note, instance.args))

    def answer(self, index, answer, keep=True):
        """Takes the answer of question `index` of `open`, into lm_eval's cache too if `keep`. How many
        requests that answers."""
        question = self.open[index]
        for position in question.indexes:
            self.answers[self._asked[position]] = answer
        kinds = (self._note, self._kind) if len(question.instances) > 1 else (self._kind,)
        for kind in kinds if keep else ():
            for instance in question.instances:
                self._hook.add_partial(kind, instance.args, answer)
        return len(question.instances)


def group_wordings(instances, pattern=None) -> list[Question]:
    """Every instance in one question, alone where `pattern` is None or its task is not matched.
    Questions stand in the order of their first instance."""
    groups, seen, tasks = {}, collections.Counter(), collections.defaultdict(set)
    for index, instance in enumerate(instances):
        place = (instance.task_name, instance.doc_id, instance.idx)
        repeat, seen[place] = seen[place], seen[place] + 1
        name = instance.task_name or ""
        if pattern is None or not pattern.search(name):
            key = (index,)
        else:
            base = pattern.sub("", name)
            tasks[base].add(name)
            key = (base, instance.doc_id, instance.idx, repeat)
        groups.setdefault(key, []).append((index, instance, repeat))
    if pattern is not None:
        _report(tasks, pattern)
    for key, members in groups.items():
        if len(key) > 1 and len(members) != len(tasks[key[0]]):
            _refuse_incomplete(members, tasks[key[0]])
    return [Question(tuple(index for index, _, _ in members), tuple(instance for _, instance, _ in members),
                     members[0][2]) for members in groups.values()]


def _report(tasks, pattern):
    if not tasks:
        _logger.warning("paraphrase_tasks: %s matches no task's name: nothing is fused", pattern.pattern)
    for base, names in tasks.items():
        _logger.info("paraphrase_tasks: %d wordings of %s: %s", len(names), base, ", ".join(sorted(names)))
        if len(names) == 1:
            _logger.warning("paraphrase_tasks: %s has no other wording", next(iter(names)))


def _refuse_incomplete(members, names):
    instance = members[0][1]
    found = {instance.task_name for _, instance, _ in members}
    raise OptionError(f"paraphrase_tasks: document {instance.doc_id} (request {instance.idx}) is in "
                      f"{', '.join(sorted(found))}, not in {', '.join(sorted(names - found))}: tasks that word one "
                      "question must have the same documents and choices")


def shared(question, what, values):
    """The one value that all wordings of a question agree on; OptionError if they do not."""
    for instance, value in zip(question.instances, values):
        if value != values[0]:
            first = question.instances[0]
            raise OptionError(f"paraphrase_tasks: the {what} of document {first.doc_id} is {values[0]!r} in "
                              f"{first.task_name}, but {value!r} in {instance.task_name}: wordings of one question "
                              "must share it")
    return values[0]
