"""Checks of the arguments of public calls, made before the store is touched."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from localconc.errors import LimitNotFoundError

FORBIDDEN_IN_NAMES: Final = "/%&><"

#: The most slots that a limit can have.
MAX_SLOTS: Final = 2**31 - 1

#: The largest number that the store can count with.
MAX_NUMBER: Final = 2**62

#: The range of a decay above 0. Outside of it, the moments that the store computes with lose whole slots to rounding.
MIN_DECAY: Final = 1e-9
MAX_DECAY: Final = 1e9

MAX_LABEL_LENGTH: Final = 200

#: Names of the types whose values are no numbers here; numpy's is called `bool` from version 2 on, and `bool_` before.
_BOOL_NAMES: Final = frozenset(["bool", "bool_"])

_valid_names: set[str] = set()
_MAX_VALID_NAMES: Final = 10_000

Reference = TypeVar("Reference")


# ---- texts -----------------------------------------------------------------------------------------------------------


def limit_name(argument: str, value: Any) -> str:
    """Return a name that a limit can have.

    Raises:
        TypeError, ValueError: the value is no such name.
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a string, not {shown(value)}")
    if value in _valid_names:
        return value
    if not value:
        raise ValueError(f"{argument} must not be an empty string")
    forbidden = sorted({character for character in value if character in FORBIDDEN_IN_NAMES or character == "\0"})
    if forbidden:
        raise ValueError(f"{argument}: A limit's name can't contain {' or '.join(map(repr, forbidden))}: {value!r}")
    if printable(value) != value:
        raise ValueError(f"{argument}: A limit's name can't contain what UTF-8 can't encode: {value!r}")
    if len(_valid_names) >= _MAX_VALID_NAMES:
        _valid_names.clear()
    _valid_names.add(value)
    return value


def limit_names(value: Any) -> tuple[str, ...]:
    """Return the names of one call, each once, from a string, an iterable of strings, or None."""
    if isinstance(value, str):
        return (limit_name("names", value),)
    if value is None:
        return ()
    if not isinstance(value, Iterable) or isinstance(value, (bytes, bytearray)):
        raise TypeError(f"names must be a string or an iterable of strings, not {shown(value)}")
    return tuple(dict.fromkeys(limit_name("names", name) for name in value))


def name_or_id(value: Reference) -> Reference:
    """Return what a limit is looked up by, unless it is a text that the store can't even be asked for.

    Raises:
        LimitNotFoundError: UTF-8 can't encode the text, so no limit has that name.
    """
    if isinstance(value, str) and printable(value) != value:
        raise LimitNotFoundError(f"There is no limit {printable(value)!r}.")
    return value


def label(value: Any) -> str:
    """Return the label of a call, made printable; "" for None."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"label must be a string, not {shown(value)}")
    if len(value) > MAX_LABEL_LENGTH:
        raise ValueError(f"label must have at most {MAX_LABEL_LENGTH} characters, but {value!r} has {len(value)}")
    return printable(value).replace("\0", "\N{REPLACEMENT CHARACTER}")  # at a NUL, SQLite's substr() ends


def printable(text: str) -> str:
    """Return the text with a replacement character for each part that is not Unicode.

    File names, arguments and environment variables can hold any bytes. Python keeps those that are not Unicode as lone
    surrogates, and raises when a program prints, encodes or stores them. So the names of threads, tasks, commands and
    paths pass through here first.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= each <= "\udfff" else each for each in text)
    return text


def shown(value: object) -> str:
    """Return a value as an error shows it. Python refuses to write out an int of more than 4,300 digits."""
    try:
        return repr(value)
    except ValueError:
        return "a number with too many digits to show"


# ---- numbers ---------------------------------------------------------------------------------------------------------


def whole(argument: str, value: Any, at_least: int, at_most: int = MAX_SLOTS) -> int:
    """Return a whole number in the allowed range. Any type with `__index__` counts, numpy's too, but no bool."""
    if _is_bool(value) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{argument} must be a whole number, not {shown(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{argument} must be a whole number, not {shown(value)}") from None
    if not at_least <= number <= at_most:
        raise ValueError(f"{argument} must be from {at_least} to {at_most}, but is {shown(value)}")
    return int(number)  # a subclass of int may print or compare in its own way


def flag(argument: str, value: Any) -> bool:
    """Return a truth value; 0 and 1 are accepted for False and True."""
    if not _is_bool(value) and (not isinstance(value, int) or value not in (0, 1)):
        raise TypeError(f"{argument} must be True or False, not {shown(value)}")
    return bool(value)


def decay(value: Any) -> float:
    """Return a slot decay per second: 0, or a number from `MIN_DECAY` to `MAX_DECAY`."""
    number = float(_number("slot_decay_per_second", value))
    if number != 0 and not MIN_DECAY <= number <= MAX_DECAY:
        raise ValueError(
            f"slot_decay_per_second must be 0, or from {MIN_DECAY:g} to {MAX_DECAY:g}, but is {shown(value)}"
        )
    return abs(number)  # of -0.0


def nearest_decay(number: float) -> float:
    """Return the allowed decay that is nearest to a stored one, because version 1 accepted any number."""
    return 0.0 if number <= 0 else min(max(float(number), MIN_DECAY), MAX_DECAY)


def timeout(value: Any) -> float | None:
    """Return a time-out in seconds, an int or a float as the caller gave it, because an error shows it.

    None and infinity return None, with which a call waits for as long as it takes. A `timedelta` is a time-out, too.
    """
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else _number("timeout_seconds", value)
    if not seconds >= 0:
        raise ValueError(f"timeout_seconds must be 0 or more, but is {shown(value)}")
    return None if seconds == math.inf else seconds


def seconds(argument: str, value: Any, at_most: float) -> float:
    """Return a duration in seconds, above 0; a `timedelta` is one, too."""
    number = value.total_seconds() if isinstance(value, timedelta) else float(_number(argument, value))
    if not 0 < number <= at_most:
        raise ValueError(f"{argument} must be above 0 and at most {at_most:.10g}, but is {shown(value)}")
    return number


def since(value: Any) -> float | None:
    """Return a `datetime` in seconds since 1970 (a naive one counts as local time); None for None."""
    if value is not None and not isinstance(value, datetime):
        raise TypeError(f"since must be a datetime, not {shown(value)}")
    if value is None:
        return None
    try:
        seconds = value.timestamp()
        datetime.fromtimestamp(seconds, UTC)  # what is read says when the window begins
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"since must be a moment that this system's clock can show, but is {shown(value)}") from None
    return seconds


def lease_duration(value: Any) -> float | None:
    """Return how many seconds a server's lease is to last; None leaves that to the server."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else _number("lease_duration", value)
    if not 0 < seconds < math.inf:
        raise ValueError(f"lease_duration must be above 0, and finite, but is {shown(value)}")
    return seconds


def create_if_missing(value: Any) -> bool:
    """Return whether to create a missing limit."""
    if value is True:
        return True
    if value is False or value is None:
        return False
    raise TypeError(
        f"create_if_missing must be True, False or None, not {shown(value)}: since Prefect 3.0.2 the fourth positional "
        "argument there is max_retries, which localconc takes by name (max_retries=…)"
    )


def _number(argument: str, value: Any) -> float:
    """Return a number as an int or a float; any type with `__index__` or `__float__` is one, but a bool is not."""
    kind = type(value)
    if kind is int or kind is float:
        _check_size(argument, value)
        return value  # type: ignore[no-any-return]
    if _is_bool(value) or not (hasattr(kind, "__index__") or hasattr(kind, "__float__")):
        raise TypeError(f"{argument} must be a number, not {shown(value)}")
    try:
        if hasattr(kind, "__index__"):
            number = int(operator.index(value))
            _check_size(argument, number)
            return number
        return float(value)
    except OverflowError:
        raise ValueError(f"{argument} is too large: {shown(value)}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{argument} must be a number, not {shown(value)}") from None


def _check_size(argument: str, number: float) -> None:
    try:
        float(number)
    except OverflowError:
        raise ValueError(f"{argument} is too large: {shown(number)}") from None


def _is_bool(value: Any) -> bool:
    return type(value).__name__ in _BOOL_NAMES
