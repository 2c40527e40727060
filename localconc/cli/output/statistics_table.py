"""What limits went through, as a table for people and as objects for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from localconc.cli.output.json import time_text
from localconc.cli.output.tables import console, new_table
from localconc.cli.output.text import duration_text, literal
from localconc.cli.output.timeline.clock import window_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from localconc._engine.core.history import Percentiles, Statistics

#: A limit that is used more than this is likely too small for what is asked of it.
BUSY_SHARE = 0.9


def print_statistics(statistics: Sequence[Statistics]) -> None:
    """Print two lines for each limit: waits and holds."""
    table = new_table("LIMIT", "ACQUIRED", "REFUSED", "IN USE", "", "P50", "P90", "P99", "LONGEST")
    for column in (1, 2, 3, 5, 6, 7, 8):
        table.columns[column].justify = "right"
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    for one in statistics:
        first = [
            Text(literal(one.name), style="bold"),
            Text(f"{one.acquisitions:,}"),
            Text(f"{one.refusals:,}" if one.refusals else "-", style="red" if one.refusals else "dim"),
            _share(one.utilization),
        ]
        _add(table, first, "waited", one.waited_seconds)
        _add(table, [Text()] * 4, "held", one.held_seconds)
    screen = console()
    since, until = min(one.since for one in statistics), max(one.until for one in statistics)
    screen.print(Text(window_text(since.timestamp(), until.timestamp()), style="dim"))
    screen.print(table)


def _add(table: Table, first: list[Text], what: str, spread: Percentiles | None) -> None:
    if spread is None:
        figures = [Text("-", style="dim")] * 4
    else:
        figures = [Text(duration_text(seconds)) for seconds in (spread.p50, spread.p90, spread.p99, spread.max)]
    table.add_row(*first, Text(what, style="dim"), *figures)


def _share(utilization: float | None) -> Text:
    if utilization is None:
        return Text("-", style="dim")
    return Text(f"{utilization:.0%}", style="yellow" if utilization >= BUSY_SHARE else "")


def statistics_object(statistics: Statistics) -> dict[str, Any]:
    """Give the fields of `Statistics`."""
    return {**asdict(statistics), "since": time_text(statistics.since), "until": time_text(statistics.until)}
