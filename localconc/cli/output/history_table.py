"""Past acquisitions, as a table for people and as objects for programs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from localconc.cli.output.columns import Column, fitted_table
from localconc.cli.output.json import time_text
from localconc.cli.output.tables import console
from localconc.cli.output.text import duration_text, literal
from localconc.cli.output.timeline.lanes import MAIN_THREADS, program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localconc._engine.core.history import Acquisition

_ENDING_STYLES = {"killed": "red", "held": "green", "unseen": "yellow"}


def print_history(acquisitions: Sequence[Acquisition], now: float) -> None:
    """Print acquisitions, one a line."""
    columns = [
        Column("ACQUIRED", [_acquired(one, now) for one in acquisitions]),
        Column("LIMIT", [Text(literal(one.name), style="bold") for one in acquisitions], gives_way=True),
        Column("SLOTS", [Text(_slots(one)) for one in acquisitions]),
        Column("WAITED", [_waited(one) for one in acquisitions]),
        Column("HELD", [Text(held_text(one, now), _ENDING_STYLES.get(one.ending, "")) for one in acquisitions]),
        Column("PID", [Text(str(one.pid)) for one in acquisitions]),
        Column("HOLDER", [_holder(one) for one in acquisitions], gives_way=True),
        Column("COMMAND", [_shortened(program(literal(one.command))) for one in acquisitions], gives_way=True),
    ]
    screen = console()
    screen.print(fitted_table(columns, screen.width, ("SLOTS", "COMMAND", "HOLDER", "WAITED", "HELD", "ACQUIRED")))


def _acquired(acquisition: Acquisition, now: float) -> Text:
    acquired = datetime.fromtimestamp(acquisition.acquired_at.timestamp())
    is_today = acquired.date() == datetime.fromtimestamp(now).date()
    return Text(f"{acquired:%H:%M:%S}" if is_today else f"{acquired:%Y-%m-%d %H:%M:%S}")


def _waited(acquisition: Acquisition) -> Text:
    waited = acquisition.waited_seconds
    return Text(duration_text(waited) if waited >= 0.001 else "-", style="yellow" if waited >= 0.1 else "dim")


def _shortened(text: str) -> Text:
    """Show as much as there is room for: each acquisition has one line on a screen."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def held_text(acquisition: Acquisition, now: float) -> str:
    """Say how long slots were held, and how that ended if they were not simply released."""
    acquired = acquisition.acquired_at.timestamp()
    if acquisition.ending == "instant":
        return "-"
    if acquisition.ending == "held":
        return f"{duration_text(now - acquired)} so far"
    if acquisition.released_at is None:
        return "end not seen"
    held = duration_text(acquisition.released_at.timestamp() - acquired)
    return held if acquisition.ending == "released" else f"{held}, {acquisition.ending}"


def acquisition_object(acquisition: Acquisition) -> dict[str, Any]:
    """Give the fields of an `Acquisition`."""
    released = acquisition.released_at
    return {
        "name": acquisition.name,
        "slots": acquisition.slots,
        "numbers": list(acquisition.numbers),
        "pid": acquisition.pid,
        "thread": acquisition.thread,
        "command": acquisition.command,
        "label": acquisition.label,
        "waited_seconds": acquisition.waited_seconds,
        "acquired_at": time_text(acquisition.acquired_at),
        "released_at": None if released is None else time_text(released),
        "mode": acquisition.mode,
        "ending": acquisition.ending,
    }


def _holder(acquisition: Acquisition) -> Text:
    name = literal(acquisition.label or acquisition.thread)
    return Text("-", style="dim") if name in MAIN_THREADS else _shortened(name)


def _slots(acquisition: Acquisition) -> str:
    if not acquisition.numbers:
        return str(acquisition.slots)
    return f"{acquisition.slots} (#{','.join(map(str, acquisition.numbers))})"
