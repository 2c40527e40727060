"""Repairs of a home that lose nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from localconc._engine.liveness import owner as owners
from localconc._engine.queue import cleanup, definitions
from localconc._engine.store.files import checkpoints
from localconc._engine.waiting.threads import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localconc._engine.core.records import OwnerRow
    from localconc._engine.engine import Engine
    from localconc._engine.store.store import Transaction


def close_to_others(open_wide: Callable[[], dict[Path, int]]) -> Callable[[Engine], None]:
    """Return a repair that takes permissions away from files.

    SQLite makes its log and the log's index with the mode that the database has at that moment. Those that it made
    before this closed the database to others (even in the examination that found it open) are closed in a second round.
    """

    def close(engine: Engine) -> None:
        for _ in range(2):
            for path, mode in open_wide().items():
                with suppress(FileNotFoundError):
                    os.chmod(path, mode)

    return close


def reap_dead(dead: list[OwnerRow], files: list[Path]) -> Callable[[Engine], None]:
    """Return a repair that releases the slots of dead processes, and removes orphaned files."""

    def reap(engine: Engine) -> None:
        for owner in dead:
            run(engine, partial(engine.reaper.reap, owner))
        for path in files:
            with suppress(OSError):
                path.unlink()

    return reap


def reap_lost(lost: list[OwnerRow]) -> Callable[[Engine], None]:
    """Return a repair that releases the slots of processes whose files are gone, unless they have made them again."""

    def reap(engine: Engine) -> None:
        for owner in lost:
            if owners.is_lost(engine.directory, owner):
                run(engine, partial(engine.reaper.reap, owner))

    return reap


def log_definitions(names: list[str]) -> Callable[[Engine], None]:
    """Return a repair that writes definitions beside the database, where they survive its loss."""

    def write(engine: Engine) -> None:
        def work(txn: Transaction) -> None:
            for row in map(txn.ledger.limit_named, names):
                if row is not None:
                    definitions.log_definition(txn, row)

        run(engine, lambda: engine.store.transact(work))

    return write


def repair_rows(engine: Engine) -> None:
    """Make the totals equal the rows of the holders, and delete the rows of unknown processes."""
    run(engine, lambda: engine.store.transact(cleanup.repair_rows))


def rebuild(engine: Engine) -> None:
    """Set a damaged database aside, and build a new one with the same limits."""
    run(engine, engine.rebuild)
    run(engine, engine.store.database.ensure_open)


def reopen(engine: Engine) -> None:
    """Open the store, which brings back a log that was removed under its users, or gives it one if it has none."""
    run(engine, engine.store.database.ensure_open)


def compact(engine: Engine) -> None:
    """Give unused space back to the file system."""
    run(engine, partial(engine.store.database.maintain, checkpoints.compact))
