"""Limits, spans of time and places in a queue, in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from localconc.cli.rate_text import rate_text

if TYPE_CHECKING:
    from localconc.limits import Limit


def describe_limit(limit: Limit) -> str:
    """A limit in half a sentence."""
    slots = f"{limit.limit} slot{'' if limit.limit == 1 else 's'}"
    parts = [f"{limit.name!r}: {slots}" if limit.limit else f"{limit.name!r}: paused (limit 0)"]
    if limit.slot_decay_per_second:
        parts.append(f"{rate_text(limit.slot_decay_per_second)} drain")
    if limit.active_slots:
        parts.append(f"{limit.active_slots} in use")
    if not limit.active:
        parts.append("not enforced")
    return ", ".join(parts)


def short_command(command: str) -> str:
    """A command line without where its program is, nor the interpreter of one that is installed."""
    begins_with_name = re.sub(r"^\S*/(?=\S)", "", command)
    return re.sub(r"^python[\d.]*\s+/\S*/(?=\S)", "", begins_with_name)


def span(seconds: float) -> str:
    """How long, in at most two units: `0.4s`, `12s`, `3m12s`, `2h05m`, `4d06h`."""
    if seconds < 0.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3_600}h{whole % 3_600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02}h"


def ago(seconds_since_1970: float) -> str:
    """When something was, as people say it: `3 minutes ago`."""
    import pendulum

    return pendulum.from_timestamp(seconds_since_1970, tz="UTC").diff_for_humans()


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 11th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
