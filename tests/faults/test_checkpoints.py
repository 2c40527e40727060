"""The log is brought into the database by one process at a time: what SQLite could lose otherwise is never lost."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import lock_descriptor

from localconc import create_limit, ensure_limit, update_limit
from localconc._engine import registry
from localconc._engine.core.errors import Busy
from localconc._engine.store.files import checkpoints
from localconc._engine.store.rows.schema import CHECKPOINT_PAGES
from tests.faults.programs import Cast

#: A process looks ten times within this how long the log is.
NOTICED_WITHIN_SECONDS = 0.1

_ACQUIRE = "for _ in range({}):\n    with sync.concurrency('L', limit=1): pass"


def _log_frames(home: Path) -> tuple[int, int]:
    """How many pages the log holds, and how many of them are in the database; for a process without the store open."""
    index = (home / "localconc.db-shm").read_bytes()
    return struct.unpack_from("=I", index, 16)[0], struct.unpack_from("=I", index, 96)[0]


@contextmanager
def _another_is_at_a_checkpoint(home: Path) -> Iterator[None]:
    lock = os.open(home / "gate.lock", os.O_RDWR)
    try:
        assert lock_descriptor(lock, blocking=False)
        yield
    finally:
        os.close(lock)


def test_no_checkpoint_begins_while_another_process_may_be_at_one(
    programs: Cast, localconc_home_directory: Path
) -> None:
    """SQLite before 3.51.3 loses what was committed if a checkpoint begins just as another one ends."""
    home = localconc_home_directory
    process = programs.puppet()
    process.run(_ACQUIRE.format(1))
    before = _log_frames(home)[1]
    with _another_is_at_a_checkpoint(home):
        process.run(_ACQUIRE.format(1500))
        process.run("localconc.ensure_limit('durable', 1)")

        written, brought_in = _log_frames(home)
        assert written > CHECKPOINT_PAGES
        assert brought_in == before

    time.sleep(NOTICED_WITHIN_SECONDS)
    process.run(_ACQUIRE.format(1))
    assert _log_frames(home)[0] < written, "the log was not begun anew"


def test_a_log_that_is_in_the_database_is_not_brought_in_again(localconc_home_directory: Path) -> None:
    """A writer may begin it anew at this very moment, which an old SQLite's second checkpoint would not notice."""
    ensure_limit("L", 1)
    database = registry.current().store.database
    assert database._connection is not None
    statements: list[str] = []
    database._connection.set_trace_callback(statements.append)

    database.maintain(checkpoints.checkpoint)
    assert not [each for each in statements if "checkpoint" in each]

    update_limit("L", limit=2)
    assert [each for each in statements if "checkpoint" in each]


def test_a_process_that_uses_the_store_only_once_brings_a_long_log_in(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    idle, busy = programs.puppet(), programs.puppet()
    idle.must_enter("other", limit=1)  # so that nobody is the last to close the store
    with _another_is_at_a_checkpoint(home):
        busy.run(_ACQUIRE.format(1500))
        busy.kill()
    written, _ = _log_frames(home)
    assert written > CHECKPOINT_PAGES

    once = "from localconc._engine.store import database\nfrom localconc.sync import concurrency\n"
    once += "database.VERIFY_EVERY_SECONDS = 60.0  # it ends before it would look at its store again\n"
    once += "with concurrency('L', limit=1): pass"
    programs.python(once).finish()

    assert _log_frames(home)[0] < written, "the log was not begun anew"


def test_a_limit_is_made_once_though_the_store_is_busy_right_after_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of definitions is on the disk by then."""
    database = registry.current().store.database
    tries: list[object] = []

    def maintain(work: object) -> None:
        tries.append(work)
        raise Busy

    monkeypatch.setattr(database, "maintain", maintain)
    assert create_limit("L", 1).limit == 1
    assert tries == [checkpoints.checkpoint]
