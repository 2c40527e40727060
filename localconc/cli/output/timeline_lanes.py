"""Lanes: one for each holder, more where its bars overlap."""

from __future__ import annotations

import heapq
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localconc.cli.output.text import short_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from localconc.cli.output.timeline import Bar, Caller

#: With more holders than this, those of one process share lanes: ten thousand tasks that ran once each make no picture.
MAX_HOLDERS = 100

_MAIN_THREADS = ("MainThread", "")


@dataclass(slots=True)
class Lane:
    """A row of the picture.

    Attributes:
        holder: number of the holder within its limit. Lanes with the same number stand below each other.
        title: what to call it; "" for a further lane of the same holder.
        detail: the rest of what tells it from others.
        bars: what it shows, in order of time; no two overlap.
        caused_seconds: how long others waited because of these bars.
    """

    holder: int
    title: str
    detail: str
    bars: list[Bar] = field(default_factory=list)

    @property
    def caused_seconds(self) -> float:
        """How long others waited because of these bars."""
        return sum(bar.caused_seconds for bar in self.bars)


def lanes_of(bars: Sequence[Bar]) -> list[Lane]:
    """Lay bars, which are in order of time, into lanes; the holder that came first is first."""
    holders: dict[object, list[Bar]] = {}
    for bar in bars:
        holders.setdefault(bar.caller, []).append(bar)
    shared = len(holders) > MAX_HOLDERS
    if shared:
        holders = {}
        for bar in bars:
            holders.setdefault(bar.caller.pid, []).append(bar)
    lanes: list[Lane] = []
    for number, own in enumerate(holders.values()):
        title, detail = _names(own[0].caller, shared=shared and len({bar.caller for bar in own}) > 1)
        rows = _rows(own)
        lanes.append(Lane(number, title, detail, rows[0]))
        lanes += [Lane(number, "", "", row) for row in rows[1:]]
    return lanes


def _names(caller: Caller, *, shared: bool) -> tuple[str, str]:
    command = program(caller.command)
    thread = "" if caller.thread in _MAIN_THREADS else caller.thread
    parts = [f"pid {caller.pid}"] if shared else [caller.label, thread, command, f"pid {caller.pid}"]
    title, *rest = [part for part in ([command, *parts] if shared else parts) if part]
    return title, " · ".join(rest)


def program(command: str) -> str:
    """A command line without the interpreter and without the folder of its program."""
    return re.sub(r"^python[\d.]*\s+(?=[^\s-])", "", short_command(command))


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
