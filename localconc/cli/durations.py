"""Durations as people write and read them."""

from __future__ import annotations

import re

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhdw])\s*")

#: A century. Moments further back can't be subtracted from now on every system.
MAX_SECONDS = 100 * 365 * 86_400.0


def parse_duration(text: str) -> float:
    """Read `90`, `45s`, `10m`, `1h30m` or `2d` as seconds.

    Raises:
        ValueError: it is no duration, or longer than a century.
    """
    written = text.strip().lower()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", written):
        seconds = float(written)
    else:
        parts = _PART.findall(written)
        if not parts or _PART.sub("", written):
            raise ValueError(f"must be a duration such as 45s, 10m or 1h30m, not {text!r}")
        seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if seconds > MAX_SECONDS:
        raise ValueError(f"must be at most a century, but is {text!r}")
    return seconds


def duration_text(seconds: float) -> str:
    """Write a duration with two or three figures: `0.4ms`, `38ms`, `0.42s`, `12.3s`, `3m12s`, `2h05m`, `4d06h`."""
    if seconds <= 0:
        return "0s"
    if seconds < 0.0995:
        milliseconds = max(seconds * 1_000, 0.1)
        return f"{milliseconds:.{1 if milliseconds < 9.95 else 0}f}ms"
    if seconds < 59.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f}s"
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{whole_seconds:02}s"
