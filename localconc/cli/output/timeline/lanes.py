"""Lanes: one for each holder, more where its bars overlap."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localconc.cli.output.text import short_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from localconc.cli.output.timeline.model import Bar, Caller

#: With more holders than this, those of one process, command or program share lanes: ten thousand tasks or processes
#: that ran once each make no picture.
MAX_HOLDERS = 100

MAIN_THREADS = ("MainThread", "")

_INTERPRETER = re.compile(r"^python[\d.]*\s+(?:-[bBdEiIOPqsSuvx]+\s+|-[XW]\s*\S+\s+)*(?=[^\s-])")

#: A child of a pool. Its command line says how it was started, which is the same for all, and not what it runs.
_POOL_CHILD = re.compile(r"^python.* -c from multiprocessing\.\w+ import ")
_POOL = "multiprocessing"
_NAMED_POOL_CHILD = re.compile(r"^python.* -m \S*\bloky\b.* --process-name (\S+)")


@dataclass(slots=True)
class Lane:
    """A row of the picture.

    Attributes:
        holder: number of the holder within its limit. Lanes with the same number stand below each other.
        title: what to call it; "" for a further lane of the same holder.
        detail: the rest of what tells it from others.
        caused_seconds: how long others waited because of the holder; 0 for a further lane of the same one.
        bars: what it shows, in order of time; no two overlap.
    """

    holder: int
    title: str
    detail: str
    caused_seconds: float = 0.0
    bars: list[Bar] = field(default_factory=list)


def lanes_of(bars: Sequence[Bar]) -> list[Lane]:
    """Lay bars, which are in order of time, into lanes; the holder that came first is first."""
    lanes: list[Lane] = []
    for number, own in enumerate(_holders(bars)):
        title, detail = _shared_names({bar.caller for bar in own})
        first, *others = _rows(own)
        lanes.append(Lane(number, title, detail, sum(bar.caused_seconds for bar in own), first))
        lanes += [Lane(number, "", "", 0.0, row) for row in others]
    return lanes


def _holders(bars: Sequence[Bar]) -> list[list[Bar]]:
    """Tell holders apart as finely as leaves few enough of them."""
    holders: dict[object, list[Bar]] = {}
    for key in _KEYS:
        holders = {}
        for bar in bars:
            holders.setdefault(key(bar.caller), []).append(bar)
        if len(holders) <= MAX_HOLDERS:
            break
    return list(holders.values())


_KEYS: tuple[Callable[[Caller], object], ...] = (
    lambda caller: caller,
    lambda caller: caller.pid,
    lambda caller: caller.command,
    lambda caller: program(caller.command).partition(" ")[0],
    lambda caller: None,
)


def names_of(caller: Caller) -> tuple[str, str]:
    """Choose what to call a caller, and say the rest of what tells it from others."""
    thread = "" if caller.thread in MAIN_THREADS else caller.thread
    what = program(caller.command)
    if what == _POOL and (caller.label or thread):
        what = ""  # it tells nothing
    title, *rest = [part for part in (caller.label, thread, what, f"pid {caller.pid}") if part]
    return title, " · ".join(rest)


def _shared_names(callers: set[Caller]) -> tuple[str, str]:
    if len(callers) == 1:
        return names_of(next(iter(callers)))
    pids, commands = ({getattr(caller, field) for caller in callers} for field in ("pid", "command"))
    programs = {program(command) for command in commands}
    names = programs if len(programs) == 1 else {name.partition(" ")[0] for name in programs}
    title = (names.pop() if len(names) == 1 else "") or "several programs"
    return title, f"pid {pids.pop()}" if len(pids) == 1 else f"{len(pids):,} processes"


def distinct_names(callers: Iterable[Caller]) -> dict[Caller, str]:
    """Name callers in few words. Those that would be called the same have their pid in the name."""
    titles = {caller: names_of(caller)[0] for caller in callers}
    count = Counter(titles.values())
    return {
        caller: title if count[title] == 1 or title == f"pid {caller.pid}" else f"{title} ({caller.pid})"
        for caller, title in titles.items()
    }


def program(command: str) -> str:
    """A command line without the interpreter, the interpreter's options and the folder of its program."""
    short = short_command(command)
    named = _NAMED_POOL_CHILD.match(short)
    if named:
        return named[1]
    if _POOL_CHILD.match(short):
        return _POOL
    return short_command(_INTERPRETER.sub("", short))


def _rows(bars: Iterable[Bar]) -> list[list[Bar]]:
    """Put each bar into the first row that is free when it begins."""
    rows: list[list[Bar]] = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for bar in bars:
        while busy and busy[0][0] <= bar.waiting_since:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            free.append(len(rows))
            rows.append([])
        row = heapq.heappop(free)
        rows[row].append(bar)
        heapq.heappush(busy, (bar.hold_end, row))
    return rows
