"""One line on the terminal that tells a waiting command's user what it waits for; gone when the wait is over."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from localconc._engine import homes
from localconc._engine.machine import Machine
from localconc._engine.overview import expected_wait_seconds, overview
from localconc.cli.faults import literal
from localconc.cli.rate_text import rate_text
from localconc.cli.words import ordinal, short_command, span
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from localconc._engine.overview import Claim, Overview, Standing

#: Waits shorter than this show nothing.
FIRST_AFTER_SECONDS = 0.2
EVERY_SECONDS = 0.5

MOST_HOLDERS = 2

#: What the terminal itself writes behind the line for Ctrl-C must not begin a new one.
ROOM_CELLS = 3


@contextmanager
def status_line(names: Sequence[str] = ()) -> Iterator[None]:
    """Show what this process waits for (limits of these names) while the block runs, on a terminal and only there."""
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_keep_showing, args=(over, names), name="localconc-status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _keep_showing(over: threading.Event, names: Sequence[str]) -> None:
    shown = False
    begun = time.monotonic()
    seconds = FIRST_AFTER_SECONDS
    while not over.wait(seconds):
        seconds = EVERY_SECONDS
        with suppress(LocalconcError, OSError):
            text = _waiting_text(names, begun) if _is_in_front() else None
            if text is not None:
                width = os.get_terminal_size(sys.stderr.fileno()).columns - ROOM_CELLS
                sys.stderr.write(f"\r\x1b[K{shortened(text, width)}")
                sys.stderr.flush()
                shown = True
    if shown:
        with suppress(OSError):
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _is_in_front() -> bool:
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, AttributeError):
        return True


def _waiting_text(names: Sequence[str], begun: float) -> str | None:
    engine = homes.current()
    if not isinstance(engine, Machine):
        waited = span(time.monotonic() - begun)
        limits = ", ".join(f"'{literal(name)}'" for name in names)
        return f"Waiting for {limits} {waited}: a Prefect server keeps it, which tells neither place nor holders"
    everything = overview(engine)
    texts = [
        (expected_wait_seconds(found, everything.now, claim.slots, before) or 0.0, found, before, claim)
        for found in everything.standings
        for before, claim in enumerate(found.waiters)
        if claim.owner_id == engine.owner_id
    ]
    if not texts:
        return None
    _, found, before, claim = max(texts, key=lambda entry: entry[0])
    return describe(found, before, claim, everything)


def describe(found: Standing, before: int, claim: Claim, everything: Overview) -> str:
    """What one waits for, as a line: the place in the queue, the estimated wait, and who holds the slots."""
    seconds = expected_wait_seconds(found, everything.now, claim.slots, before)
    waited = span(everything.wall - claim.since)
    parts = [f"Waiting for '{literal(found.limit.name)}' {waited}: {ordinal(before + 1)} in line"]
    if found.limit.limit == 0:
        parts.append("paused (limit 0)")
    elif seconds is not None:
        parts.append(f"about {span(seconds)} to go")
    if found.holders:
        parts.append(f"held by {_holders(found, everything.wall)}")
    elif found.limit.decay > 0:
        parts.append(f"{rate_text(found.limit.decay)} drain")
    return ", ".join(parts)


def _holders(found: Standing, wall: float) -> str:
    held = [f"pid {claim.pid or '?'} for {span(wall - claim.since)}" for claim in found.holders[:MOST_HOLDERS]]
    more = len(found.holders) - MOST_HOLDERS
    if len(found.holders) == 1:
        return f"{held[0]} ({literal(short_command(found.holders[0].command or ''))})"
    return " and ".join(held) if more <= 0 else f"{', '.join(held)} and {more} more"


def shortened(text: str, cells: int) -> str:
    """As much of a text as fits so many cells of a terminal."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= cells else set_cell_size(text, max(cells - 1, 0)).rstrip() + "…"
