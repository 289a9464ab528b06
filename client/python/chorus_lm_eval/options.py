"""model_args: parsed, checked, refused by name."""
from __future__ import annotations

import dataclasses
import difflib
import math
import pathlib
import re

import chorus_client as chorus
from chorus_lm_eval.errors import OptionError

# What lm_eval passes to every model's constructor; the server decides all of it.
_IGNORED = ("batch_size", "max_batch_size", "device")
# Fields of Fusion that only some methods read.
_ATTENTION_ONLY = ("positions", "separators", "first_token", "attention_temperature", "attention_scale",
                   "segment_log_bias")
_WEIGHTED = (chorus.Method.LOGIT_MEAN, chorus.Method.PROB_MEAN, chorus.Method.ATTENTION)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """model_args by their names, checked. Those of `fusion` are model_args themselves."""
    target: str
    fusion: chorus.Fusion
    paraphrase_tasks: re.Pattern | None
    separator: str
    shared_prefix: bool
    shared_suffix: bool
    max_length: int | None
    max_gen_toks: int
    prefix_token_id: int | None
    add_bos_token: bool | None
    tokenizer: pathlib.Path | None
    seed: int
    concurrency: int
    server_timeout: float
    tls: chorus.Tls | None
    token: str | None


class _Bad(Exception):
    """A value is not valid; the text says what is."""


# ---- Values: typed already, or as text ----

def _text(value):
    """\\n, \\t and \\\\ are what they are in C."""
    text = str(value)
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\\t", "\t").replace("\0", "\\")


def _flag(value):
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise _Bad("true or false")


def _integer(low, high=2**31 - 1):
    def parse(value):
        try:
            number = int(str(value)) if not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise _Bad(f"an integer from {low} to {high}")
        return number
    return parse


def _number(low=-math.inf):
    """A finite number above `low`."""
    def parse(value):
        try:
            number = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or number <= low:
            raise _Bad("a finite number" + (f" above {low:g}" if math.isfinite(low) else ""))
        return number
    return parse


def _one_of(enum):
    def parse(value):
        try:
            return enum(value)
        except ValueError:
            raise _Bad("one of " + ", ".join(member.value for member in enum)) from None
    return parse


def _weights(value):
    parts = str(value).split(":") if not isinstance(value, (list, tuple)) else value
    weights = [_number()(part) for part in parts]
    if min(weights) < 0 or sum(weights) <= 0:
        raise _Bad("numbers >= 0 that are not all 0, as 2:1:1")
    return weights


def _pattern(value):
    try:
        return re.compile(str(value))
    except re.error as error:
        raise _Bad(f"a regular expression ({error})") from None


def _file(value):
    path = pathlib.Path(str(value)).expanduser()
    if not path.is_file():
        raise _Bad("an existing file")
    return path


def _folder(value):
    path = pathlib.Path(str(value)).expanduser()
    if not path.is_dir():
        raise _Bad("a folder with tokenizer_config.json")
    return path


_FUSION = {"method": _one_of(chorus.Method), "positions": _one_of(chorus.Positions),
           "separators": _one_of(chorus.Separators), "first_token": _one_of(chorus.FirstToken),
           "weights": _weights, "attention_temperature": _number(0), "attention_scale": _number(0),
           "segment_log_bias": _number()}
# name -> (parser, default)
_OWN = {"target": (str, "127.0.0.1:50051"), "paraphrase_tasks": (_pattern, None), "separator": (_text, ""),
        "shared_prefix": (_flag, False), "shared_suffix": (_flag, False),
        "max_length": (_integer(2), None), "max_gen_toks": (_integer(1), 256),
        "prefix_token_id": (_integer(0), None), "add_bos_token": (_flag, None), "tokenizer": (_folder, None),
        "seed": (_integer(0, 2**63 - 1), 1234), "concurrency": (_integer(1, 4096), 16),
        "server_timeout": (_number(0), 300.0)}
_SECURITY = {"tls": (_flag, False), "tls_roots": (_file, None), "tls_key": (_file, None),
             "tls_chain": (_file, None), "token_file": (_file, None)}
NAMES = (*_FUSION, *_OWN, *_SECURITY)


def parse_options(model_args) -> Options:
    """From model_args as lm_eval gives them: {name: value}. OptionError names what is wrong."""
    given = {name: value for name, value in model_args.items()
             if name not in _IGNORED and value is not None}
    for name in given:
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, 1)
            hint = f"did you mean {close[0]}?" if close else "one of " + ", ".join(NAMES)
            raise OptionError(f"model_args: {name}: no option of the model chorus; {hint}")
    fusion = {name: _parse(name, _FUSION[name], given[name]) for name in _FUSION if name in given}
    _check_method(fusion)
    if "weights" in fusion and "paraphrase_tasks" not in given:
        raise OptionError("model_args: weights: not valid without paraphrase_tasks: there is one wording only")
    own, security = ({name: _parse(name, parser, given[name]) if name in given else default
                      for name, (parser, default) in table.items()} for table in (_OWN, _SECURITY))
    return Options(fusion=chorus.Fusion(**fusion), tls=_tls(security),
                   token=_token(security["token_file"]), **own)


def _parse(name, parser, value):
    try:
        return parser(value)
    except _Bad as bad:
        raise OptionError(f"model_args: {name}: {value!r} is not valid: {bad}") from None


def _check_method(fusion):
    """The server would refuse these too, but only after every request is built."""
    method = fusion.get("method", chorus.Method.ATTENTION)
    for name in _ATTENTION_ONLY:
        if name in fusion and method is not chorus.Method.ATTENTION:
            raise OptionError(f"model_args: {name}: {fusion[name]!s} is not valid: method=attention alone has it, "
                              f"not method={method}")
    if "weights" in fusion and method not in _WEIGHTED:
        raise OptionError(f"model_args: weights: not valid with method={method}: only with "
                          + ", ".join(map(str, _WEIGHTED)))


def _tls(security):
    files = {"root_certificates": security["tls_roots"], "private_key": security["tls_key"],
             "certificate_chain": security["tls_chain"]}
    if not security["tls"] and not any(files.values()):
        return None
    return chorus.Tls(**files)


def _token(path):
    return None if path is None else path.read_text(encoding="utf-8").strip()
