"""Limits as tables for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from localconc.cli.output.columns import Column, fitted_table
from localconc.cli.output.text import ago, clock_time, literal, rate_text, span
from localconc.cli.snapshot import estimate_wait, has_been_released, pause_seconds

if TYPE_CHECKING:
    from localconc.cli.snapshot import Entry, Estimate, LimitStatus, Snapshot

BAR_CELLS = 8

#: Wide enough to wrap nothing if no screen sets a width.
UNBOUNDED_CELLS = 10_000


def console() -> Console:
    """Open the screen, or a pipe on which nothing is wrapped, shortened or coloured."""
    width = None if sys.stdout.isatty() else UNBOUNDED_CELLS
    return Console(width=width, markup=False, emoji=False, highlight=False)


def print_list(snapshot: Snapshot) -> None:
    """Print all limits, one a line."""
    limits = snapshot.limits
    if not limits:
        print("There are no limits yet. Make one: localconc create NAME --limit N")
        return
    screen = console()
    names = [Text(literal(status.name), style="bold" if status.active else "dim") for status in limits]
    columns = [
        Column("NAME", names, gives_way=True),
        Column("SLOTS", [slots_text(status, is_ascii_only(screen)) for status in limits]),
        Column("WAITING", [_count_text(status) for status in limits]),
        Column("DECAY", [_decay_text(status) for status in limits]),
        Column("STATE", [state_text(status, snapshot.wall) for status in limits]),
        Column("CHANGED", [Text(ago(status.updated)) for status in limits]),
    ]
    if snapshot.untold:
        columns = [column for column in columns if column.header not in ("WAITING", "CHANGED")]
    screen.print(fitted_table(columns, screen.width, ("CHANGED", "DECAY", "WAITING", "STATE")))
    if snapshot.untold:
        screen.print(Text(snapshot.untold, style="dim"))


def _count_text(status: LimitStatus) -> Text:
    count = len(status.waiters)
    return Text(str(count), style="yellow") if count else Text("-", style="dim")


def _decay_text(status: LimitStatus) -> Text:
    rate = rate_text(status.slot_decay_per_second)
    return Text(rate or "-", style="" if rate else "dim")


def print_inspection(status: LimitStatus, snapshot: Snapshot) -> None:
    """Print one limit, its holders and its waiters."""
    screen = console()
    title = Text(literal(status.name), style="bold")
    screen.print(Text("  ").join([title, slots_text(status, is_ascii_only(screen)), state_text(status, snapshot.wall)]))
    screen.print(Text("\n".join(f"  {line}" for line in _facts(status, snapshot))))
    if snapshot.untold:
        screen.print(Text(snapshot.untold, style="dim"))
        return
    _print_entries(screen, "Holding", status.holders, snapshot.wall, numbered=False)
    _print_entries(screen, "Waiting", status.waiters, snapshot.wall, numbered=True)


def _facts(status: LimitStatus, snapshot: Snapshot) -> list[str]:
    wall = snapshot.wall
    facts = [f"{status.active_slots} of {status.limit} slots in use"]
    if status.slot_decay_per_second > 0:
        facts.append(f"{rate_text(status.slot_decay_per_second)} drain by themselves")
        seconds = status.next_slot_seconds
        if seconds is not None:
            facts.append(f"The next slot frees in {span(seconds)}")
        elif not status.active_slots:
            facts.append("All slots are free")
    elif status.unowned_slots:
        facts[0] += f", {status.unowned_slots} of them set by an operator"
    if pause := pause_seconds(status, wall):
        effect = "no request is admitted" if status.active else "no effect while it is disabled"
        facts.append(f"Paused for {span(pause)} more, until {clock_time(wall + pause)}: {effect}")
    if not status.active:
        facts.append(f"{'Disabled' if status.configured else 'Not set'}: every request is admitted")
    wait = estimate_wait(status, wall) if status.active else None
    if wait is not None:
        facts.append(f"A new request would {_wait_text(wait)}")
    if status.slot_decay_per_second <= 0 and has_been_released(status):
        facts.append(f"A slot is held for {span(status.avg_slot_occupancy_seconds)} on average")
    changed = "" if snapshot.untold else f", changed {ago(status.updated)}"  # a server counts every acquisition
    facts.append(f"Made {ago(status.created)}{changed}")
    facts.append(f"Its id is {status.id}")
    return facts


def _wait_text(wait: Estimate) -> str:
    if not wait.seconds:
        return "be admitted immediately"
    if wait.is_exact:
        return f"wait {span(wait.seconds)}"
    if wait.is_exceeded:
        return f"wait for holders that take longer than usual ({span(wait.seconds)})"
    return f"wait about {span(wait.seconds)}"


def _print_entries(screen: Console, title: str, entries: list[Entry], wall: float, *, numbered: bool) -> None:
    if not entries:
        screen.print(Text(f"{title}: nobody"))
        return
    screen.print(Text(f"{title}: {len(entries)}"))
    texts = {
        "#": [str(position) if numbered else "" for position in range(1, len(entries) + 1)],
        "PID": [str(entry.pid or "?") for entry in entries],
        "SLOTS": [str(entry.slots) for entry in entries],
        "NUMBERS": [",".join(map(str, entry.numbers)) for entry in entries],
        "FOR": [span(wall - entry.since) for entry in entries],
        "THREAD": [entry.thread for entry in entries],
        "LABEL": [entry.label for entry in entries],
        "COMMAND": [entry.command for entry in entries],
    }
    columns = [
        Column(header, [Text(literal(cell)) for cell in cells], gives_way=header in ("THREAD", "LABEL", "COMMAND"))
        for header, cells in texts.items()
        if any(cells)
    ]
    screen.print(fitted_table(columns, screen.width, ("THREAD", "NUMBERS", "SLOTS", "LABEL", "#", "FOR")))


def is_ascii_only(screen: Console) -> bool:
    """Tell whether only ASCII can be shown."""
    return not screen.encoding.lower().startswith("utf")


def slots_text(status: LimitStatus, ascii_only: bool) -> Text:
    """Show slots in use as a bar and in figures."""
    used, limit = status.active_slots, status.limit
    filled = 0 if limit == 0 and not used else min(BAR_CELLS, -(-used * BAR_CELLS // max(limit, 1)))
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    style = "dim" if not status.active else "red" if used >= limit else "green"
    return Text.assemble((full * filled, style), (empty * (BAR_CELLS - filled), "dim"), f" {used}/{limit}")


def state_text(status: LimitStatus, wall: float) -> Text:
    """Show whether the limit is enforced."""
    if not status.configured:
        return Text("not set", style="yellow")
    if not status.active:
        return Text("disabled", style="yellow")
    if pause := pause_seconds(status, wall):
        return Text(f"paused {span(pause)}", style="yellow")
    return Text("paused", style="yellow") if status.limit == 0 else Text("enabled", style="green")
