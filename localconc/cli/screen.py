"""Limits as lines of a screen: a line for each, and below it who holds and who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from localconc._engine.description import active_slots
from localconc._engine.overview import expected_wait_seconds
from localconc.cli.faults import literal, one_line
from localconc.cli.rate_text import rate_text
from localconc.cli.words import ordinal, short_command, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleDimensions, ConsoleOptions

    from localconc._engine.overview import Claim, Overview, Standing

BAR_CELLS = 10
MOST_CLAIMS = 3

#: A line in pieces: each a text with the name of its style.
Line = list[tuple[str, str]]

_STYLES = {name: Style.parse(name) for name in ("bold", "dim", "green", "red", "yellow", "cyan", "reverse") if name}


def lines(everything: Overview, width: int, *, plain: bool) -> list[Line]:
    """All of it, in lines of at most so many cells; the names get what the figures leave."""
    names = [literal(found.limit.name) for found in everything.standings]
    room = max(width - _FIGURES_CELLS, 8)
    name_cells = min(max([cell_len(name) for name in names] + [4]), room)
    painted = [_summary(everything), _header(name_cells, everything)]
    for found, name in zip(everything.standings, names, strict=True):
        painted.append(_limit_line(found, _fitted(name, name_cells), everything, plain))
        painted += _claim_lines(found, everything.wall)
    if not names:
        painted.append([("There are no limits yet. Make one: localconc create NAME --limit N", "")])
    if everything.untold:
        painted.append([(everything.untold, "dim")])
    return [_cut(line, width) for line in painted]


def trouble(error: Exception) -> list[Line]:
    """What to show where there is nothing to see."""
    return [[(one_line(str(error)), "red")]]


def _summary(everything: Overview) -> Line:
    holders = sum(len(found.holders) for found in everything.standings)
    waiters = sum(len(found.waiters) for found in everything.standings)
    count = len(everything.standings)
    text = f"localconc  {count} limit{'' if count == 1 else 's'}"
    if not everything.untold:
        text += f", {holders} holding, {waiters} waiting"
    return [(text, "bold"), ("   q leaves, j and k scroll", "dim")]


_FIGURES_CELLS = 2 + BAR_CELLS + 1 + 9 + 8 + 9 + 8 + 2 + 12


def _header(name_cells: int, everything: Overview) -> Line:
    slots = f"{'SLOTS':<{BAR_CELLS + 10}}"
    figures = "" if everything.untold else f"{'WAITING':>8}{'GRANTS/S':>9}{'WAIT':>8}"
    return [(f"{'NAME':<{name_cells}}  {slots}{figures}  DECAY", "dim")]


def _limit_line(found: Standing, name: str, everything: Overview, plain: bool) -> Line:
    row, now = found.limit, everything.now
    used = active_slots(row, now)
    filled = 0 if not used else min(BAR_CELLS, -(-used * BAR_CELLS // max(row.limit, 1)))
    full, empty = ("#", ".") if plain else ("█", "░")
    wait = expected_wait_seconds(found, now, 1) if row.active else 0.0
    state = "paused" if row.limit == 0 else rate_text(row.decay)
    return [
        (name, "bold" if row.active else "dim"),
        ("  ", ""),
        (full * filled, "dim" if not row.active else "red" if used >= row.limit else "green"),
        (empty * (BAR_CELLS - filled), "dim"),
        (f" {f'{used}/{row.limit}':<9}", ""),
        *([] if everything.untold else _figures(found, wait)),
        (f"  {state if row.active else 'disabled'}", "cyan" if row.active else "yellow"),
    ]


def _figures(found: Standing, wait: float | None) -> Line:
    return [
        (f"{len(found.waiters) or '-':>8}", "yellow" if found.waiters else "dim"),
        (f"{f'{found.grants:.1f}' if found.grants else '-':>9}", "" if found.grants else "dim"),
        (f"{span(wait) if wait else '-':>8}", "" if wait else "dim"),
    ]


def _claim_lines(found: Standing, wall: float) -> Iterator[Line]:
    for claim in found.holders[:MOST_CLAIMS]:
        who = f"pid {claim.pid or '?'}  {claim.slots}x  {span(wall - claim.since)}"
        yield [("  holds  ", "green"), (who, ""), (f"  {_doing(claim)}", "dim")]
    if len(found.holders) > MOST_CLAIMS:
        yield [(f"         and {len(found.holders) - MOST_CLAIMS} more", "dim")]
    for position, claim in enumerate(found.waiters[:MOST_CLAIMS], 1):
        who = f"{ordinal(position)}  pid {claim.pid or '?'}  {claim.slots}x  {span(wall - claim.since)}"
        yield [("  waits  ", "yellow"), (who, ""), (f"  {_doing(claim)}", "dim")]
    if len(found.waiters) > MOST_CLAIMS:
        yield [(f"         and {len(found.waiters) - MOST_CLAIMS} more", "dim")]


def _doing(claim: Claim) -> str:
    return literal(short_command(claim.command or claim.thread or ""))


def _fitted(text: str, cells: int) -> str:
    """A text in exactly so many cells."""
    return set_cell_size(text, cells) if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def _cut(line: Line, width: int) -> Line:
    left = width
    cut: Line = []
    for text, style in line:
        cells = cell_len(text)
        if cells > left:
            if left > 0:
                cut.append((_fitted(text, left), style))
            break
        cut.append((text, style))
        left -= cells
    return cut


class Picture:
    """What is on the screen: the lines that fit it, from where it was scrolled to."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._size: object = None
        self._top = 0
        self._moved = False

    def show(self, lines: list[Line], size: ConsoleDimensions) -> bool:
        """Take new lines; True if there is something to paint."""
        changed = self._moved or lines != self._lines or size != self._size
        self._lines, self._size, self._moved = lines, size, False
        return changed

    def scroll(self, by: int) -> None:
        """Move down by so many lines, or up."""
        self._top = max(0, min(self._top + by, len(self._lines) - 2))
        self._moved = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        height = options.height or options.max_height
        below = max(0, len(self._lines) - self._top - height)
        shown = self._lines[self._top : self._top + height]
        if below:
            shown[-1] = [(f"... {below + 1} more lines below", "reverse")]
        for number, line in enumerate(shown):
            if number:
                yield Segment.line()
            for text, style in line:
                yield Segment(text, _STYLES.get(style))


def as_text(line: Line) -> str:
    """A line without its styles."""
    return "".join(text for text, _ in line).rstrip()
