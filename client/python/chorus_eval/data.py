"""Data sets: questions with paraphrases and answers, from JSONL or CSV. Every malformed record is
named by its line and field."""
from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib


@dataclasses.dataclass(frozen=True)
class Question:
    id: str
    question: str
    paraphrases: tuple[str, ...]
    answers: tuple[str, ...]  # any of them is right
    line: int                 # where the record begins, from 1

    @property
    def wordings(self) -> tuple[str, ...]:
        """The question, then its paraphrases: what --indexes counts."""
        return (self.question, *self.paraphrases)


class DataError(Exception):
    """A record, a template or a file that cannot be used: "FILE:LINE: FIELD: what is wrong"."""

    def __init__(self, path, line, field, problem):
        where = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{where}: {field}: {problem}" if field else f"{where}: {problem}")
        self.path, self.line, self.field, self.problem = path, line, field, problem


class _Bad(Exception):
    """One record is malformed: (field, problem)."""

    def __init__(self, field, problem):
        super().__init__(field, problem)
        self.field, self.problem = field, problem


def load_questions(path, templates=(), data_format=None):
    """(questions, errors): the good records in the file's order, and a DataError for each bad one.
    `templates` (see load_templates) add a paraphrase each to every question. Raises DataError when the
    file as a whole cannot be read."""
    path = pathlib.Path(path)
    reader = {"jsonl": _jsonl_records, "csv": _csv_records}[data_format or _format_of(path)]
    questions, errors, lines_of_ids = [], [], {}
    for line, record in reader(path, _read(path)):
        try:
            if isinstance(record, _Bad):
                raise record
            question = _question(record, line, templates)
            if question.id in lines_of_ids:
                raise _Bad("id", f"{question.id!r} is not valid: line {lines_of_ids[question.id]} has it already")
            lines_of_ids[question.id] = line
            questions.append(question)
        except _Bad as bad:
            errors.append(DataError(path, line, bad.field, bad.problem))
    if not questions and not errors:
        raise DataError(path, 0, "", "holds no question")
    return questions, errors


def _format_of(path):
    suffix = path.suffix.lower().removeprefix(".")
    if suffix in ("jsonl", "ndjson"):
        return "jsonl"
    if suffix == "csv":
        return "csv"
    raise DataError(path, 0, "", f"its name ends in {path.suffix!r}, neither .jsonl nor .csv: say --format")


def _read(path):
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(path, 0, "", error.strerror) from None


# ---- JSONL ----

def _jsonl_records(path, content):
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, _json_record(line)


def _json_record(line):
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return _Bad("", f"is not UTF-8 (byte {error.start + 1})")
    except json.JSONDecodeError as error:
        return _Bad("", f"is not JSON: {error.msg} (column {error.colno})")
    except (RecursionError, ValueError) as error:
        return _Bad("", f"is not JSON that can be read: {error}")
    if not isinstance(record, dict):
        return _Bad("", f"is not an object, but {_kind(record)}")
    return record


# ---- CSV ----

def _csv_records(path, content):
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(path, content[:error.start].count(b"\n") + 1, "", "is not UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header, begin = None, 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield begin, _Bad("", f"is not CSV: {error}")
            return
        line, begin = begin, reader.line_num + 1
        if not row:
            continue
        if header is None:
            header = _csv_header(path, line, row)
        elif len(row) != len(header):
            yield line, _Bad("", f"has {len(row)} cells, the header has {len(header)}")
        else:
            yield line, _csv_record(header, row)


def _csv_header(path, line, row):
    names = [name.strip() for name in row]
    if "question" not in names:
        raise DataError(path, line, "question", "no such column in the header")
    return names


def _csv_record(header, row):
    record, numbered = {}, []
    for name, cell in zip(header, row):
        if name.startswith("paraphrase") and name != "paraphrases":
            if cell.strip():
                numbered.append(cell)
        elif name in ("paraphrases", "answers"):
            try:
                record[name] = _csv_list(cell)
            except json.JSONDecodeError as error:
                return _Bad(name, f"begins with [ but is no JSON list: {error.msg}")
        elif cell.strip():
            record[name] = cell
    if numbered:
        record["paraphrases"] = [*record.get("paraphrases", []), *numbered]
    return record


def _csv_list(cell):
    """A cell that holds several texts: a JSON list, or texts with | between them."""
    if cell.lstrip().startswith("["):
        return json.loads(cell)
    return [part.strip() for part in cell.split("|")] if cell.strip() else []


# ---- Records ----

def _question(record, line, templates):
    question = _text(record, "question")
    paraphrases = _texts(record.get("paraphrases", []), "paraphrases")
    paraphrases += tuple(template.replace("{question}", question) for template in templates)
    if "answers" in record:
        answers = _texts(record["answers"], "answers")
    elif "answer" in record:
        answers = (_text(record, "answer"),)
    else:
        raise _Bad("answers", "is missing")
    if not answers:
        raise _Bad("answers", "[] is not valid: at least one answer")
    identity = record.get("id", f"line{line}")
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        raise _Bad("id", f"{_shown(identity)} is not valid: a string, not {_kind(identity)}")
    return Question(str(identity), question, paraphrases, answers, line)


def _text(record, field):
    if field not in record:
        raise _Bad(field, "is missing")
    return _check_text(record[field], field)


def _check_text(value, field):
    if not isinstance(value, str):
        raise _Bad(field, f"{_shown(value)} is not valid: a string, not {_kind(value)}")
    if not value.strip():
        raise _Bad(field, f"{_shown(value)} is not valid: a string that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Bad(field, f"{_shown(value)} is not valid: half of a surrogate pair") from None
    return value


def _texts(values, field):
    if not isinstance(values, list):
        raise _Bad(field, f"{_shown(values)} is not valid: a list of strings, not {_kind(values)}")
    return tuple(_check_text(value, f"{field}[{index}]") for index, value in enumerate(values))


def _kind(value):
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string",
             list: "a list", dict: "an object"}
    return names[type(value)]


def _shown(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ---- Templates ----

def load_templates(path):
    """A paraphrase template a line, each with {question} in it; empty lines and # lines are left out."""
    path, templates = pathlib.Path(path), []
    try:
        lines = _read(path).decode().splitlines()
    except UnicodeDecodeError:
        raise DataError(path, 0, "", "is not UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if "{question}" not in line:
            raise DataError(path, number, "", f"{_shown(line)} is not valid: {{question}} must be in it")
        templates.append(line)
    if not templates:
        raise DataError(path, 0, "", "holds no template")
    return tuple(templates)


# ---- Choosing ----

def choose_wordings(questions, path, num_paraphrases=None, indexes=None):
    """(questions, errors): every question with the wordings that the run asks. `indexes` chooses among
    its wordings (0: the question); else the first `num_paraphrases` paraphrases, None for all, at
    least one. A question that has too few is an error. Returns pairs (question, wordings)."""
    chosen, errors = [], []
    for question in questions:
        wordings = question.wordings
        if indexes is not None:
            need, wanted = max(indexes), [wordings[i] for i in indexes if i < len(wordings)]
        else:
            need = 1 if num_paraphrases is None else num_paraphrases
            wanted = wordings if num_paraphrases is None else wordings[:num_paraphrases + 1]
        if len(question.paraphrases) < need:
            have = len(question.paraphrases)
            errors.append(DataError(path, question.line, "paraphrases",
                                    f"{have} is not valid: the run needs {need} or more"))
        else:
            chosen.append((question, tuple(wanted)))
    return chosen, errors
