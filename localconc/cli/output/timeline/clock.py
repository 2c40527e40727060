"""Round moments of the local clock, for the axis of a picture."""

from __future__ import annotations

import math
from datetime import datetime

_STEPS_SECONDS = [
    *(digit * 10.0**power for power in range(-4, 0) for digit in (1, 2, 5)),
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400),
    *(86_400 * days for days in (2, 7, 14, 28, 91, 365)),
]


def ticks(begin: float, end: float, most: int) -> list[tuple[float, str]]:
    """At most this many round moments between two others, with their labels."""
    span = end - begin
    step = next((step for step in _STEPS_SECONDS if span / step <= most), span or 1.0)
    offset = datetime.fromtimestamp(begin).astimezone().utcoffset()
    shift = offset.total_seconds() if offset else 0.0
    first = math.ceil((begin + shift) / step)
    last = math.floor((end + shift) / step)
    moments = [number * step - shift for number in range(first, last + 1)]
    return [(moment, clock_text(moment, step)) for moment in moments]


def clock_text(moment: float, step: float = 1.0) -> str:
    """The local time of a moment, as exactly as steps of this many seconds need."""
    local = datetime.fromtimestamp(moment + 5e-7)
    if step >= 86_400:
        return f"{local:%d %b}"
    if step >= 60:
        return f"{local:%H:%M}"
    if step >= 1:
        return f"{local:%H:%M:%S}"
    exact = f"{local:%H:%M:%S.%f}"
    return exact if step < 0.001 else exact[:-3]


def window_text(begin: float, end: float) -> str:
    """A window of local time: `Mon 2 Mar 2026, 09:00:00 to 09:02:00`."""
    first, last = datetime.fromtimestamp(begin), datetime.fromtimestamp(end)
    day = f"{first:%a} {first.day} {first:%b %Y}, "
    other = "" if first.date() == last.date() else f"{last:%a} {last.day} {last:%b}, "
    return f"{day}{first:%H:%M:%S} to {other}{last:%H:%M:%S}"
