"""Arguments of the public calls, checked before the store is touched; errors name the argument and the value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

FORBIDDEN_IN_NAMES = "/%&><"
MOST_SLOTS = 2**31 - 1  # that a limit can have
MOST_NUMBER = 2**62  # that the store can count with

_known_good_names: set[str] = set()
_MOST_KNOWN_NAMES = 10_000


def limit_name(argument: str, value: Any) -> str:
    """A name that a limit can have."""
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a string, not {value!r}")
    if value in _known_good_names:
        return value
    if not value:
        raise ValueError(f"{argument} must not be an empty string")
    bad = sorted({character for character in value if character in FORBIDDEN_IN_NAMES or character == "\0"})
    if bad:
        raise ValueError(f"{argument} must not contain {' '.join(map(repr, bad))}, but is {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{argument} must be text that UTF-8 can encode, but is {value!r}") from None
    if len(_known_good_names) >= _MOST_KNOWN_NAMES:
        _known_good_names.clear()
    _known_good_names.add(value)
    return value


def limit_names(value: Any) -> tuple[str, ...]:
    """The names of one call: a string, an iterable of strings, or nothing; each counts once."""
    if isinstance(value, str):
        return (limit_name("names", value),)
    if value is None:
        return ()
    if not isinstance(value, Iterable) or isinstance(value, (bytes, bytearray)):
        raise TypeError(f"names must be a string or an iterable of strings, not {value!r}")
    return tuple(dict.fromkeys(limit_name("names", name) for name in value))


def whole(argument: str, value: Any, at_least: int, at_most: int = MOST_SLOTS) -> int:
    """A whole number in the allowed range."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument} must be a whole number, not {value!r}")
    if not at_least <= value <= at_most:
        raise ValueError(f"{argument} must be from {at_least} to {at_most}, but is {value!r}")
    return value


def flag(argument: str, value: Any) -> bool:
    """A yes or no."""
    if not isinstance(value, (bool, int)):
        raise TypeError(f"{argument} must be True or False, not {value!r}")
    return bool(value)


def decay(value: Any) -> float:
    """A slot decay per second."""
    number = _number("slot_decay_per_second", value)
    if not 0 <= number < math.inf:
        raise ValueError(f"slot_decay_per_second must be 0 or more, and finite, but is {value!r}")
    if 0 < number < 1e-9:
        raise ValueError(f"slot_decay_per_second must be 0 or at least 1e-9, but is {value!r}")
    return number


def lease(value: float | None) -> float | None:
    """Seconds that a lease lasts, in the range that Prefect's servers accept."""
    if value is None:
        return None
    number = _number("lease_duration", value)
    if not 60 <= number <= 86_400:
        raise ValueError(f"lease_duration must be from 60 to 86400 seconds, but is {value!r}")
    return number


def timeout(value: float | None) -> float | None:
    """A time-out in seconds, as it was given; None and infinity wait for as long as it takes."""
    if value is None:
        return None
    number = _number("timeout_seconds", value)
    if not number >= 0:
        raise ValueError(f"timeout_seconds must be 0 or more, but is {value!r}")
    return None if number == math.inf else value


def _number(argument: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{argument} must be a number, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{argument} is too large: {value!r}") from None
