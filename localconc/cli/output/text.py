"""Text for people, safe to write on a terminal."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from typing import TYPE_CHECKING, TextIO

from localconc.cli.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from localconc.limits import Limit

#: The units of a rate.
UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}

# ---- what may stand on a terminal ------------------------------------------------------------------------------------


def literal(text: str) -> str:
    """Make a text harmless on a terminal.

    Whatever moves the cursor, changes colours, reverses the direction of writing or is invisible is written out.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def one_line(text: str) -> str:
    """Put a text on one line that is harmless on a terminal."""
    return literal(re.sub(r"\s*\n\s*", " ", text.strip()))


def say(message: object) -> None:
    """Print one line on stderr; if stderr can't be written, that changes nothing else."""
    try:
        print(f"localconc: {one_line(str(message))}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Let a stream write nowhere, so that the interpreter does not fail on it when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


# ---- limits, rates, times --------------------------------------------------------------------------------------------


def describe_limit(limit: Limit) -> str:
    """Describe a limit in half a sentence."""
    parts = [f"{limit.name!r}: {counted(limit.limit, 'slot')}" if limit.limit else f"{limit.name!r}: paused (limit 0)"]
    if limit.slot_decay_per_second:
        parts.append(f"{rate_text(limit.slot_decay_per_second)} drain")
    if limit.active_slots:
        parts.append(f"{limit.active_slots} in use")
    if not limit.active:
        parts.append("not enforced")
    return ", ".join(parts)


def rate_text(slots_per_second: float) -> str:
    """Say a decay in the unit that needs the fewest digits, such as `4.9/second` or `100/minute`; "" for none."""
    if slots_per_second <= 0:
        return ""
    fitting = [(unit, slots_per_second * seconds) for unit, seconds in UNIT_SECONDS.items()]
    fitting = [(unit, number) for unit, number in fitting if number >= 1] or fitting[-1:]
    exact = [
        (f"{round(number, 2):.2f}".rstrip("0").rstrip("."), unit)
        for unit, number in fitting
        if math.isclose(number, round(number, 2 if number < 100 else 0), rel_tol=1e-9)
    ]
    if not exact:
        unit, number = fitting[0]
        return f"{number:.3g}/{unit}"
    number_text, unit = min(exact, key=lambda each: len(each[0].replace(".", "")))
    return f"{number_text}/{unit}"


def span(seconds: float) -> str:
    """Say how long, in at most two units: `0.4s`, `12s`, `3m12s`, `2h05m`, `4d06h`."""
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


def clock_time(seconds_since_1970: float) -> str:
    """Say when something will be, on this machine's clock: `14:03:22`; from a day ahead, `2026-03-02 14:03:22`."""
    is_far = round(seconds_since_1970 - time.time()) >= UNIT_SECONDS["day"]
    return time.strftime("%Y-%m-%d %H:%M:%S" if is_far else "%H:%M:%S", time.localtime(seconds_since_1970))


def ago(seconds_since_1970: float) -> str:
    """Say when something was: `3 minutes ago`."""
    import pendulum

    return pendulum.from_timestamp(seconds_since_1970, tz="UTC").diff_for_humans()


def counted(number: int, noun: str) -> str:
    """Count: `1 slot`, `2 slots`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ordinal(number: int) -> str:
    """Say a place: 1st, 2nd, 3rd, 11th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def short_command(command: str) -> str:
    """Shorten a command line: no directory of its program, no interpreter of an installed script."""
    begins_with_name = re.sub(r"^\S*/(?=\S)", "", command)
    return re.sub(r"^python[\d.]*\s+/\S*/(?=\S)", "", begins_with_name)


def duration_text(seconds: float) -> str:
    """Write a duration with two or three figures: `0.4ms`, `38ms`, `0.42s`, `12.3s`, `3m12s`, `2h05m`, `4d06h`."""
    if seconds <= 0:
        return "0s"
    if seconds < 0.0995:
        milliseconds = max(seconds * 1_000, 0.1)
        return f"{milliseconds:.{1 if milliseconds < 9.95 else 0}f}ms"
    if seconds < 59.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f}s"
    return span(seconds)


# ---- files ------------------------------------------------------------------------------------------------


def write_file(path: Path, text: str) -> None:
    """Write a file: whole, or not at all.

    Raises:
        CommandError: it can't be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a device
            return
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{str(path)!r} can't be written ({error.strerror})") from None
    except ValueError as error:  # a name with a null character
        raise CommandError(f"{str(path)!r} can't be written ({error})") from None
