"""Limits as lines of a screen, each above its holders, then its waiters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from localconc.cli.output.text import counted, literal, one_line, ordinal, rate_text, short_command, span
from localconc.cli.snapshot import estimate_wait, pause_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleDimensions, ConsoleOptions

    from localconc.cli.snapshot import Entry, LimitStatus, Snapshot

BAR_CELLS = 10
MAX_ENTRIES = 3

#: A line in pieces: each a text with the name of its style.
Line = list[tuple[str, str]]

_STYLES = {name: Style.parse(name) for name in ("bold", "dim", "green", "red", "yellow", "cyan", "reverse") if name}


def lines(snapshot: Snapshot, width: int, *, ascii_only: bool) -> list[Line]:
    """Lay out a snapshot in lines of at most this many cells; the names get what the figures leave."""
    names = [literal(status.name) for status in snapshot.limits]
    room = max(width - _FIGURES_CELLS, 8)
    name_cells = min(max([cell_len(name) for name in names] + [4]), room)
    painted = [_summary(snapshot), _header(name_cells, snapshot)]
    for status, name in zip(snapshot.limits, names, strict=True):
        painted.append(_limit_line(status, _fitted(name, name_cells), snapshot, ascii_only))
        painted += _entry_lines(status, snapshot.wall)
    if not names:
        painted.append([("There are no limits yet. Make one: localconc create NAME --limit N", "")])
    if snapshot.untold:
        painted.append([(snapshot.untold, "dim")])
    return [_cut(line, width) for line in painted]


def trouble(error: Exception) -> list[Line]:
    """Lay out an error, in place of limits that can't be read."""
    return [[(one_line(str(error)), "red")]]


def _summary(snapshot: Snapshot) -> Line:
    holders = sum(len(status.holders) for status in snapshot.limits)
    waiters = sum(len(status.waiters) for status in snapshot.limits)
    text = f"localconc  {counted(len(snapshot.limits), 'limit')}"
    if not snapshot.untold:
        text += f", {holders} holding, {waiters} waiting"
    return [(text, "bold"), ("   q leaves, j and k scroll", "dim")]


_FIGURES_CELLS = 2 + BAR_CELLS + 1 + 9 + 8 + 9 + 8 + 2 + 12


def _header(name_cells: int, snapshot: Snapshot) -> Line:
    slots = f"{'SLOTS':<{BAR_CELLS + 10}}"
    figures = "" if snapshot.untold else f"{'WAITING':>8}{'GRANTS/S':>9}{'WAIT':>8}"
    return [(f"{'NAME':<{name_cells}}  {slots}{figures}  DECAY", "dim")]


def _limit_line(status: LimitStatus, name: str, snapshot: Snapshot, ascii_only: bool) -> Line:
    used, limit, wall = status.active_slots, status.limit, snapshot.wall
    filled = 0 if not used else min(BAR_CELLS, -(-used * BAR_CELLS // max(limit, 1)))
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    pause = pause_seconds(status, wall)
    state = f"paused {span(pause)}" if pause else "paused" if limit == 0 else rate_text(status.slot_decay_per_second)
    return [
        (name, "bold" if status.active else "dim"),
        ("  ", ""),
        (full * filled, "dim" if not status.active else "red" if used >= limit else "green"),
        (empty * (BAR_CELLS - filled), "dim"),
        (f" {f'{used}/{limit}':<9}", ""),
        *([] if snapshot.untold else _figures(status, wall)),
        (f"  {state if status.active else 'disabled'}", "cyan" if status.active else "yellow"),
    ]


def _figures(status: LimitStatus, wall: float) -> Line:
    grants, wait = status.grants_per_second, _wait_text(status, wall)
    return [
        (f"{len(status.waiters) or '-':>8}", "yellow" if status.waiters else "dim"),
        (f"{f'{grants:.1f}' if grants else '-':>9}", "" if grants else "dim"),
        (f"{wait or '-':>8}", "" if wait else "dim"),
    ]


def _wait_text(status: LimitStatus, wall: float) -> str:
    """Say how long a new request would wait; "" if it would not wait, or if that is unknown."""
    wait = estimate_wait(status, wall) if status.active else None
    if wait is None or not wait.seconds:
        return ""
    return f"{'>' if wait.is_exceeded else ''}{span(wait.seconds)}"


def _entry_lines(status: LimitStatus, wall: float) -> Iterator[Line]:
    for entry in status.holders[:MAX_ENTRIES]:
        yield [("  holds  ", "green"), (_claim(entry, wall), ""), (f"  {_doing(entry)}", "dim")]
    yield from _and_more(status.holders)
    for position, entry in enumerate(status.waiters[:MAX_ENTRIES], 1):
        place = f"{ordinal(position)}  {_claim(entry, wall)}"
        yield [("  waits  ", "yellow"), (place, ""), (f"  {_doing(entry)}", "dim")]
    yield from _and_more(status.waiters)


def _claim(entry: Entry, wall: float) -> str:
    numbers = f"  #{','.join(map(str, entry.numbers))}" if entry.numbers else ""
    return f"pid {entry.pid or '?'}  {entry.slots}x  {span(wall - entry.since)}{numbers}"


def _and_more(entries: list[Entry]) -> Iterator[Line]:
    if len(entries) > MAX_ENTRIES:
        yield [(f"         and {len(entries) - MAX_ENTRIES} more", "dim")]


def _doing(entry: Entry) -> str:
    doing = short_command(entry.command or entry.thread)
    return literal(f"{entry.label}: {doing}" if entry.label else doing)


def _fitted(text: str, cells: int) -> str:
    """Cut or pad a text to exactly this many cells."""
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
    """The lines that are on the screen: as many as fit it, from the line on that the user scrolled to."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._size: ConsoleDimensions | None = None
        self._top = 0
        self._moved = False

    def show(self, lines: list[Line], size: ConsoleDimensions) -> bool:
        """Take new lines; return whether there is something to paint."""
        changed = self._moved or lines != self._lines or size != self._size
        self._lines, self._size, self._moved = lines, size, False
        self._top = min(self._top, self._last_top())
        return changed

    def scroll(self, by: int) -> None:
        """Move down by this many lines, or up; lines that fit the screen stay where they are."""
        top = max(0, min(self._top + by, self._last_top()))
        self._moved |= top != self._top
        self._top = top

    def _last_top(self) -> int:
        return 0 if self._size is None else max(0, len(self._lines) - self._size.height)

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
    """Return a line without its styles."""
    return "".join(text for text, _ in line).rstrip()
