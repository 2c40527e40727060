"""What limits went through, as a table for people and as objects for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from localconc.cli.output.columns import Column, fitted_table
from localconc.cli.output.json import time_text
from localconc.cli.output.tables import console
from localconc.cli.output.text import duration_text, literal
from localconc.cli.output.timeline.clock import window_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localconc._engine.core.history import Statistics

#: A limit that is used more than this is likely too small for what is asked of it.
BUSY_SHARE = 0.9

_FIGURES = {"P50": "p50", "P90": "p90", "P99": "p99", "LONGEST": "max"}


def print_statistics(statistics: Sequence[Statistics]) -> None:
    """Print two lines for each limit: waits and holds."""
    screen = console()
    since, until = min(one.since for one in statistics), max(one.until for one in statistics)
    screen.print(Text(window_text(since.timestamp(), until.timestamp()), style="dim"))
    names = [Text(literal(one.name), style="bold") for one in statistics]
    refusals = [Text(f"{one.refusals:,}" if one.refusals else "-", _refusal_style(one)) for one in statistics]
    columns = [
        Column("LIMIT", _beside_waits(names), gives_way=True),
        Column("ACQUIRED", _beside_waits([Text(f"{one.acquisitions:,}") for one in statistics]), is_right=True),
        Column("REFUSED", _beside_waits(refusals), is_right=True),
        Column("IN USE", _beside_waits([_share(one.utilization) for one in statistics]), is_right=True),
        Column("", [Text(what, style="dim") for _ in statistics for what in ("waited", "held")]),
        *(Column(header, _figures(statistics, field), is_right=True) for header, field in _FIGURES.items()),
    ]
    screen.print(fitted_table(columns, screen.width, ("P90", "ACQUIRED", "REFUSED", "P99", "IN USE")))


def _beside_waits(cells: list[Text]) -> list[Text]:
    """Put what is said once of each limit into the first of its two lines."""
    return [each for cell in cells for each in (cell, Text())]


def _figures(statistics: Sequence[Statistics], field: str) -> list[Text]:
    spreads = [spread for one in statistics for spread in (one.waited_seconds, one.held_seconds)]
    return [
        Text("-", style="dim") if spread is None else Text(duration_text(getattr(spread, field))) for spread in spreads
    ]


def _refusal_style(statistics: Statistics) -> str:
    return "red" if statistics.refusals else "dim"


def _share(utilization: float | None) -> Text:
    if utilization is None:
        return Text("-", style="dim")
    return Text(f"{utilization:.0%}", style="yellow" if utilization >= BUSY_SHARE else "")


def statistics_object(statistics: Statistics) -> dict[str, Any]:
    """Give the fields of `Statistics`."""
    return {**asdict(statistics), "since": time_text(statistics.since), "until": time_text(statistics.until)}
