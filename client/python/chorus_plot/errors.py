"""The one exception that the command shows as a line instead of a traceback."""


class InputError(ValueError):
    """Bad input: the message names the field, the value and the limit."""


def check(condition, message):
    """Raises InputError(message) unless `condition`."""
    if not condition:
        raise InputError(message)
