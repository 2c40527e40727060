"""Durations with as many figures as they are worth."""

from __future__ import annotations


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
