"""The line that tells the user of a waiting command what it waits for."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from localconc.cli.engine_access import is_on_server
from localconc.cli.output.text import clock_time, literal, ordinal, rate_text, short_command, span
from localconc.cli.snapshot import estimate_wait, pause_seconds, take_snapshot
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from localconc.cli.snapshot import Entry, LimitStatus

#: Waits shorter than this show nothing.
FIRST_AFTER_SECONDS = 0.2
EVERY_SECONDS = 0.5

MAX_HOLDERS = 2

#: What the terminal itself writes behind the line for Ctrl-C must not begin a new one.
ROOM_CELLS = 3


@contextmanager
def telling_of_the_wait(names: Sequence[str]) -> Iterator[None]:
    """Tell what this process waits for (slots of these limits) while the block runs.

    On a terminal, a line shows it and disappears with the wait. Elsewhere, this prints the few lines that the library
    logs about a long wait.
    """
    if sys.stderr.isatty():
        with _status_line(names):
            yield
        return
    logging.getLogger("localconc").setLevel(logging.INFO)
    yield


@contextmanager
def _status_line(names: Sequence[str]) -> Iterator[None]:
    over = threading.Event()
    line = _Line()
    thread = threading.Thread(target=_keep_showing, args=(over, line, names), name="localconc-status", daemon=True)
    logger = logging.getLogger("localconc")
    logger.addFilter(line.make_room)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        logger.removeFilter(line.make_room)


class _Line:
    """The last line of the terminal, which changes until it disappears."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_shown = False

    def show(self, text: str) -> None:
        with self._lock, suppress(OSError):
            width = os.get_terminal_size(sys.stderr.fileno()).columns - ROOM_CELLS
            sys.stderr.write(f"\r\x1b[K{shortened(text, width)}")
            sys.stderr.flush()
            self._is_shown = True

    def clear(self) -> None:
        with self._lock, suppress(OSError):
            if self._is_shown:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()
                self._is_shown = False

    def make_room(self, record: logging.LogRecord) -> bool:
        """Clear the line for a record that is about to be written in its place; let every record pass."""
        self.clear()
        return True


def _keep_showing(over: threading.Event, line: _Line, names: Sequence[str]) -> None:
    begun = time.monotonic()
    seconds = FIRST_AFTER_SECONDS
    while not over.wait(seconds):
        seconds = EVERY_SECONDS
        with suppress(LocalconcError, OSError):
            text = _waiting_text(names, begun) if _is_in_front() else None
            if text is not None:
                line.show(text)
    line.clear()


def _is_in_front() -> bool:
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:
        return True


def _waiting_text(names: Sequence[str], begun: float) -> str | None:
    if is_on_server():
        return _describe_wait_for_server(names, time.monotonic() - begun)
    snapshot = take_snapshot(reap=False)
    waits = [
        (status, before, entry)
        for status in snapshot.limits
        for before, entry in enumerate(status.waiters)
        if entry.owner_id == snapshot.owner_id
    ]
    if not waits:
        return None
    status, before, entry = max(waits, key=lambda wait: _length(*wait, wall=snapshot.wall))
    return describe(status, before, entry, snapshot.wall)


def _describe_wait_for_server(names: Sequence[str], waited_seconds: float) -> str:
    limits = ", ".join(f"'{literal(name)}'" for name in names)
    return (
        f"Waiting for {limits} {span(waited_seconds)}: a Prefect server keeps it, which tells neither place nor holders"
    )


def _length(status: LimitStatus, before: int, entry: Entry, *, wall: float) -> tuple[bool, float]:
    """Order the limits that one request waits for: the one that keeps it out for longest comes last."""
    wait = estimate_wait(status, wall, entry.slots, before)
    return wait is None, 0.0 if wait is None else wait.seconds


def describe(status: LimitStatus, before: int, entry: Entry, wall: float) -> str:
    """Describe a wait in a line: the place in the queue, the estimated wait, the holders of the slots."""
    parts = [f"Waiting for '{literal(status.name)}' {span(wall - entry.since)}: {ordinal(before + 1)} in line"]
    wait = estimate_wait(status, wall, entry.slots, before)
    if pause := pause_seconds(status, wall):
        parts.append(f"paused for {span(pause)}")
    elif status.limit == 0:
        parts.append("paused (limit 0)")
    elif wait is not None and wait.is_exact and wait.seconds:
        parts.append(f"due at {clock_time(wall + wait.seconds)}, {span(wait.seconds)} to go")
    elif wait is not None:
        parts.append("longer than usual" if wait.is_exceeded else f"about {span(wait.seconds)} to go")
    if status.holders:
        parts.append(f"held by {_holders(status, wall)}")
    elif status.unowned_slots:
        parts.append(f"{status.unowned_slots} set by an operator")
    elif status.slot_decay_per_second > 0:
        parts.append(f"{rate_text(status.slot_decay_per_second)} drain")
    return ", ".join(parts)


def _holders(status: LimitStatus, wall: float) -> str:
    held = [f"pid {entry.pid or '?'} for {span(wall - entry.since)}" for entry in status.holders[:MAX_HOLDERS]]
    more = len(status.holders) - MAX_HOLDERS
    if len(status.holders) == 1:
        label, command = status.holders[0].label, short_command(status.holders[0].command)
        return f"{held[0]} ({literal(f'{label}: {command}' if label else command)})"
    return " and ".join(held) if more <= 0 else f"{', '.join(held)} and {more} more"


def shortened(text: str, cells: int) -> str:
    """Return as much of a text as fits this many cells of a terminal."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= cells else set_cell_size(text, max(cells - 1, 0)).rstrip() + "…"
