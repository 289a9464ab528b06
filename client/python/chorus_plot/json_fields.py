"""Reads protobuf JSON tolerantly: int64 as text, NaN as null or text, enums with or without prefix.

Every function takes the object, the key and where the object stands, which errors name.
"""
import numpy as np

from chorus_plot.errors import InputError, check


def member(parent, key, where):
    check(isinstance(parent, dict), f"{where or 'the file'} is not an object")
    check(key in parent, f"{_path(where, key)} is missing")
    return parent[key]


def integer(parent, key, where="", default=0):
    """An absent key is 0, as proto3 JSON leaves zeros out."""
    value = parent.get(key, default) if isinstance(parent, dict) else None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InputError(f"{_path(where, key)} is {value!r}; it must be an integer") from None


def integers(parent, key, where=""):
    return [_integer(value, f"{_path(where, key)}[{index}]")
            for index, value in enumerate(items(parent, key, where))]


def items(parent, key, where=""):
    """A list; an absent key is an empty one."""
    check(isinstance(parent, dict), f"{where or 'the file'} is not an object")
    value = parent.get(key) or []
    check(isinstance(value, (list, tuple)), f"{_path(where, key)} is not a list")
    return value


def floats(parent, key, where, shape):
    """float32 of `shape`, from a flat or nested list; null, "NaN" and "Infinity" are numbers."""
    try:
        values = np.asarray(items(parent, key, where), dtype=object).reshape(-1)
        values = np.array([np.nan if value is None else float(value) for value in values],
                          dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{_path(where, key)} is not a list of numbers: {error}") from None
    check(values.size == np.prod(shape),
          f"{_path(where, key)} has {values.size} values; {' x '.join(map(str, shape))} are needed")
    return values.reshape(shape)


def name(parent, key, prefix, where=""):
    """An enum's name without its prefix, lower case: UNIT_KIND_SEGMENT and segment are one."""
    value = member(parent, key, where)
    check(isinstance(value, str), f"{_path(where, key)} is {value!r}; it must be a name")
    return value.lower().removeprefix(prefix.lower())


def _integer(value, path):
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InputError(f"{path} is {value!r}; it must be an integer") from None


def _path(where, key):
    return f"{where}.{key}" if where else key
