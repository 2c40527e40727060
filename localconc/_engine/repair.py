"""Putting a home in order again, as far as nothing can be lost by it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from localconc._engine import definitions, soundness
from localconc._engine.blocking import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localconc._engine.engine import Engine
    from localconc._engine.owners import OwnerRow
    from localconc._engine.turn import Turn


def closing(paths: list[Path], unwanted: int) -> Callable[[Engine], None]:
    """A repair that takes permissions away from files."""

    def close(engine: Engine) -> None:
        for path in paths:
            os.chmod(path, stat.S_IMODE(path.stat().st_mode) & ~unwanted)

    return close


def reaping(dead: list[OwnerRow], files: list[Path]) -> Callable[[Engine], None]:
    """A repair that gives back what dead processes held, and removes the files of others."""

    def reap(engine: Engine) -> None:
        for owner in dead:
            run(engine, partial(engine.reap, owner))
        for path in files:
            with suppress(OSError):
                path.unlink()

    return reap


def writing_beside(names: list[str]) -> Callable[[Engine], None]:
    """A repair that writes definitions beside the database, where they survive the loss of it."""

    def write(engine: Engine) -> None:
        def work(turn: Turn) -> None:
            for row in map(turn.ledger.limit_named, names):
                if row is not None:
                    definitions.note_definition(turn, row)

        run(engine, lambda: engine.in_turn(work))

    return write


def mend(engine: Engine) -> None:
    """Make the sums equal the rows of the holders, and drop what belongs to nobody."""

    def work(turn: Turn) -> None:
        assert engine.database.connection is not None
        soundness.mend(turn, engine.database.connection)

    run(engine, lambda: engine.in_turn(work))


def heal(engine: Engine) -> None:
    """Set a damaged database aside, and build one with the same limits."""
    run(engine, engine.heal)
    run(engine, engine.database.ensure_open)


def compact(engine: Engine) -> None:
    """Give unused space back to the filesystem."""

    def operation() -> None:
        engine.database.ensure_open()
        engine.database.execute_alone(soundness.COMPACT, ())
        engine.database.row_alone(soundness.EMPTY_LOG, ())

    run(engine, operation)
