"""Limits as tables for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from uuid import UUID

from rich.console import Console
from rich.table import Table
from rich.text import Text

from localconc._engine.description import active_slots
from localconc._engine.overview import expected_wait_seconds, next_slot_seconds
from localconc.cli.faults import literal
from localconc.cli.rate_text import rate_text
from localconc.cli.words import ago, span

if TYPE_CHECKING:
    from localconc._engine.model import LimitRow
    from localconc._engine.overview import Claim, Overview, Standing

BAR_CELLS = 8

#: What of a name is kept on one line of a narrow screen, beside figures however large.
LEAST_NAME_CELLS = 8

#: Wide enough that nothing is wrapped where no screen sets a width.
UNBOUNDED_CELLS = 10_000


def console() -> Console:
    """The screen, or a pipe on which nothing is wrapped, shortened or coloured."""
    width = None if sys.stdout.isatty() else UNBOUNDED_CELLS
    return Console(width=width, markup=False, emoji=False, highlight=False)


def print_list(everything: Overview) -> None:
    """All limits, one a line."""
    screen = console()
    if not everything.standings:
        print("There are no limits yet. Make one: localconc create NAME --limit N")
        return
    untold = bool(everything.untold)
    headers = ["NAME", "SLOTS", "WAITING", "DECAY", "STATE", "CHANGED"]
    table = _table(*(["NAME", "SLOTS", "DECAY", "STATE"] if untold else headers))
    names = [Text(literal(one.limit.name), style="bold" if one.limit.active else "dim") for one in everything.standings]
    table.columns[0].overflow = "fold"
    table.columns[0].min_width = min(LEAST_NAME_CELLS, max(name.cell_len for name in names))
    for found, name in zip(everything.standings, names, strict=True):
        row = found.limit
        waiting = Text(str(len(found.waiters)) if found.waiters else "-", style="yellow" if found.waiters else "dim")
        slots = slots_text(row, everything.now, is_plain(screen))
        decay = Text(rate_text(row.decay) or "-", style="" if row.decay else "dim")
        cells = [name, slots, waiting, decay, state_text(row), Text(ago(row.updated))]
        table.add_row(*([name, slots, decay, state_text(row)] if untold else cells))
    screen.print(table)
    _print_untold(screen, everything)


def print_inspection(found: Standing, everything: Overview) -> None:
    """One limit, its holders and its waiters."""
    screen = console()
    row, now = found.limit, everything.now
    title = Text(literal(row.name), style="bold")
    screen.print(Text("  ").join([title, slots_text(row, now, is_plain(screen)), state_text(row)]))
    screen.print(Text("\n".join(f"  {line}" for line in _facts(found, everything))))
    if everything.untold:
        _print_untold(screen, everything)
        return
    _print_claims(screen, "Holding", found.holders, everything.wall, numbered=False)
    _print_claims(screen, "Waiting", found.waiters, everything.wall, numbered=True)


def _print_untold(screen: Console, everything: Overview) -> None:
    if everything.untold:
        screen.print(Text(everything.untold, style="dim"))


def _facts(found: Standing, everything: Overview) -> list[str]:
    row, now = found.limit, everything.now
    held = sum(claim.slots for claim in found.holders)
    facts = [f"{active_slots(row, now)} of {row.limit} slots in use"]
    if everything.untold:
        decay = [f"{rate_text(row.decay)} drain by themselves"] if row.decay > 0 else []
        return [*facts, *decay, f"Made {ago(row.created)}", f"Its id is {UUID(bytes=row.uuid)}"]
    if row.decay > 0:
        facts.append(f"{rate_text(row.decay)} drain by themselves")
        seconds = next_slot_seconds(row, now)
        facts.append("All slots are free" if seconds is None else f"The next slot frees in {span(seconds)}")
    elif row.held > held:
        facts[0] += f", {row.held - held} of them set by an operator"
    wait = expected_wait_seconds(found, now, 1)
    if row.active and wait is not None:
        facts.append(f"Whoever asks now waits about {span(wait)}" if wait else "Whoever asks now goes ahead at once")
    facts.append(f"A slot is held for {span(row.average)} on average")
    facts.append(f"Made {ago(row.created)}, changed {ago(row.updated)}")
    facts.append(f"Its id is {UUID(bytes=row.uuid)}")
    return facts


def _print_claims(screen: Console, title: str, claims: list[Claim], wall: float, *, numbered: bool) -> None:
    if not claims:
        screen.print(Text(f"{title}: nobody"))
        return
    screen.print(Text(f"{title}: {len(claims)}"))
    table = _table(*(["#"] if numbered else []), "PID", "SLOTS", "SINCE", "THREAD", "COMMAND")
    table.columns[-1].overflow = "fold"
    for position, claim in enumerate(claims, 1):
        cells = [str(claim.pid or "?"), str(claim.slots), ago(claim.since), claim.thread or "", claim.command or ""]
        table.add_row(*(Text(literal(cell)) for cell in ([str(position)] if numbered else []) + cells))
    screen.print(table)


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        table.add_column(header, no_wrap=header not in ("NAME", "COMMAND"))
    return table


def is_plain(screen: Console) -> bool:
    """Whether only ASCII can be shown."""
    return not screen.encoding.lower().startswith("utf")


def slots_text(row: LimitRow, now: float, plain: bool) -> Text:
    """Slots in use as a bar and in figures."""
    used = active_slots(row, now)
    filled = 0 if row.limit == 0 and not used else min(BAR_CELLS, -(-used * BAR_CELLS // max(row.limit, 1)))
    full, empty = ("#", ".") if plain else ("█", "░")
    style = "dim" if not row.active else "red" if used >= row.limit else "green"
    return Text.assemble((full * filled, style), (empty * (BAR_CELLS - filled), "dim"), f" {used}/{row.limit}")


def state_text(row: LimitRow) -> Text:
    """Whether the limit is enforced."""
    if not row.configured:
        return Text("not set", style="yellow")
    if not row.active:
        return Text("disabled", style="yellow")
    return Text("paused", style="yellow") if row.limit == 0 else Text("enabled", style="green")
