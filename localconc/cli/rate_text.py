"""Slot decay in human words: `100/minute` for 1.6667 slots a second, and back."""

from __future__ import annotations

import math
import re

SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}

_UNITS = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "hr": "hour", "d": "day"}
_RATE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:/|per)\s*([a-z]+)\s*", re.ASCII | re.IGNORECASE)


def parse_rate(text: str) -> float:
    """Slots a second of a rate such as `5/second`, `100/minute`, `1000/hour` or `1/day`.

    Raises:
        ValueError: it is not of that form, or not above 0.
    """
    match = _RATE.fullmatch(text)
    if match is not None:
        word = match[2].lower()
        unit = _UNITS.get(word, word.removesuffix("s"))
        number = float(match[1])
        if unit in SECONDS and 0 < number < math.inf:
            return number / SECONDS[unit]
    raise ValueError(f"{text!r} is no rate: write for example 5/second, 100/minute, 1000/hour or 1/day, above 0")


def rate_text(slots_per_second: float) -> str:
    """A decay in the unit that makes it a whole number, else the first that makes it 1 or more; empty for none."""
    if slots_per_second <= 0:
        return ""
    for unit, seconds in SECONDS.items():
        number = slots_per_second * seconds
        if number >= 1 and math.isclose(number, round(number), rel_tol=1e-9):
            return f"{round(number)}/{unit}"
    unit = next((unit for unit, seconds in SECONDS.items() if slots_per_second * seconds >= 1), "day")
    return f"{slots_per_second * SECONDS[unit]:.3g}/{unit}"
