"""Between the dataclasses of types.py and the messages of the contract. Both name their fields alike,
so one rule serves all of them."""
from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence

from chorus_client import types as t
from chorus_client.v1 import inference_pb2 as pb

# Dataclasses whose message has another name.
MESSAGE_NAMES = {"ModelInfo": "GetModelInfoResponse"}


def message_class(cls):
    return getattr(pb, MESSAGE_NAMES.get(cls.__name__, cls.__name__))


@functools.cache
def enum_numbers(cls):
    """{Python's value: the contract's number} of an enum of types.py."""
    name, prefix = t.ENUMS[cls]
    return {value: getattr(pb, name).Value(prefix + value.name) for value in cls}


@functools.cache
def enum_values(cls):
    return {number: value for value, number in enum_numbers(cls).items()}


def _message_type(hint):
    """Of the types that a sequence takes: the dataclass, if there is one among them."""
    return next((part for part in typing.get_args(hint) if dataclasses.is_dataclass(part)), hint)


@functools.cache
def _fields(cls):
    """[(name, type, is it a sequence)] with `| None` taken off the type."""
    hints = typing.get_type_hints(cls)
    fields = []
    for field in dataclasses.fields(cls):
        hint, repeated = hints[field.name], False
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        if typing.get_origin(hint) is Sequence:
            hint, repeated = _message_type(typing.get_args(hint)[0]), True
        fields.append((field.name, hint, repeated))
    return tuple(fields)


def to_message(value):
    """The message that a dataclass of types.py describes. TypeError or ValueError, naming the field,
    for a value of the wrong type or beyond what the field can hold."""
    message = message_class(type(value))()
    _fill(message, value, "")
    return message


def _fill(message, value, path):
    for name, hint, repeated in _fields(type(value)):
        item, where = getattr(value, name), f"{path}{name}"
        if item is None:
            continue
        if name == "prompt":
            _fill_prompt(message.prompt, item, where)
        elif name == "continuations":
            _fill_continuations(message.continuations, item, where)
        elif dataclasses.is_dataclass(hint) and repeated:
            for index, part in enumerate(item):
                _fill(getattr(message, name).add(), part, f"{where}[{index}].")
        elif dataclasses.is_dataclass(hint):
            _fill(getattr(message, name), item, f"{where}.")
        else:
            _set(message, name, hint, repeated, item, where)


def _fill_prompt(message, prompt, where):
    form = {t.TextPrompt: "text", t.TokenPrompt: "tokens"}.get(type(prompt))
    if form is None:
        raise TypeError(f"{where}: a TextPrompt or a TokenPrompt is needed, not {prompt!r}")
    part = getattr(message, form)
    part.SetInParent()
    _fill(part, prompt, f"{where}.{form}.")


def _fill_continuations(messages, continuations, where):
    if isinstance(continuations, str):
        raise TypeError(f"{where}: a sequence is needed, not the string {continuations!r}")
    for index, item in enumerate(continuations):
        message, here = messages.add(), f"{where}[{index}]"
        if not isinstance(item, t.Continuation):
            item = (t.Continuation(text=item) if isinstance(item, str)
                    else t.Continuation(tokens=t.TokenSegment(token_ids=item)))
        if (item.text is None) == (item.tokens is None):
            raise ValueError(f"{here}: {item!r} is not valid: text or tokens, one of them")
        if item.tokens is not None:
            message.tokens.SetInParent()
        _fill(message, item, f"{here}.")


def _set(message, name, hint, repeated, item, where):
    if repeated and isinstance(item, str):
        raise TypeError(f"{where}: a sequence is needed, not the string {item!r}")
    try:
        if hint in t.ENUMS:
            setattr(message, name, enum_numbers(hint)[hint(item)])
        elif isinstance(item, Mapping):
            getattr(message, name).update(item)
        elif repeated:
            getattr(message, name).extend(item)
        else:
            setattr(message, name, item)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {item!r} is not valid: {_expected(hint, error)}") from None


def _expected(hint, error):
    if hint in t.ENUMS:
        return "one of " + ", ".join(value.value for value in hint)
    return str(error)


def from_message(cls, message):
    """The dataclass `cls` filled from its message. An enum's unspecified or unknown value is None."""
    values = {}
    for name, hint, repeated in _fields(cls):
        item = getattr(message, name)
        if dataclasses.is_dataclass(hint):
            item = (tuple(from_message(hint, part) for part in item) if repeated
                    else from_message(hint, item))
        elif hint in t.ENUMS:
            item = enum_values(hint).get(item)
        elif repeated:
            item = tuple(item)
        elif _is_unset(message, name):
            item = None
        values[name] = item
    return cls(**values)


def _is_unset(message, name):
    field = message.DESCRIPTOR.fields_by_name[name]
    return field.has_presence and not message.HasField(name)
