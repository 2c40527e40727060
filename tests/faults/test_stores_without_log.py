"""A store whose log (WAL) another program has taken away gets a log again, and no call hangs meanwhile."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from localconc import ensure_limit, read_holders
from localconc._engine import registry
from localconc._engine.operations import doctor
from localconc.errors import AcquireConcurrencySlotTimeoutError
from localconc.sync import concurrency
from tests.faults.programs import Cast


@pytest.fixture
def store(localconc_home_directory: Path) -> Path:
    """A store with a limit, which no process has open."""
    ensure_limit("L", 1)
    registry.forget(localconc_home_directory)
    return localconc_home_directory / "localconc.db"


def _take_log_away(store: Path) -> None:
    """As `sqlite3 localconc.db 'PRAGMA journal_mode = DELETE'` does."""
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)


def _vacuum_into_place(store: Path) -> None:
    copy = store.with_name("copy.db")
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    os.replace(copy, store)
    for suffix in ("-wal", "-shm"):  # they belong to the former file
        store.with_name(store.name + suffix).unlink(missing_ok=True)


def _mode(store: Path) -> str:
    with closing(sqlite3.connect(store)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


@pytest.mark.parametrize("change", [_take_log_away, _vacuum_into_place])
def test_a_store_that_has_lost_its_log_gets_one_at_the_next_use(change: Callable[[Path], None], store: Path) -> None:
    change(store)
    assert _mode(store) == "delete"

    with concurrency("L", timeout_seconds=5):
        assert [holder.name for holder in read_holders()] == ["L"]

    assert _mode(store) == "wal"


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be replaced there")
@pytest.mark.parametrize("names", ["L", ["L", "M"]])
def test_a_holder_keeps_and_releases_its_slots_though_a_copy_without_log_takes_the_stores_place(
    names: str | list[str], programs: Cast, store: Path
) -> None:
    ensure_limit("M", 2)
    registry.forget(store.parent)
    holder, newcomer = programs.puppet(), programs.puppet()
    holder.run("from localconc._engine.store import database; database.VERIFY_EVERY_SECONDS = 60.0")  # just looked
    holder.must_enter(names)

    _vacuum_into_place(store)

    assert not newcomer.enters("L"), "two hold a limit of 1"
    newcomer.begins_to_enter("L", timeout_seconds=20)
    holder.leave(names)
    assert newcomer.outcome("L", 20) == "done"


def test_a_store_without_log_that_another_program_reads_is_busy_until_that_ends(programs: Cast, store: Path) -> None:
    _take_log_away(store)
    waiter = programs.puppet()
    with closing(sqlite3.connect(store, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM limits").fetchall()

        with pytest.raises(AcquireConcurrencySlotTimeoutError, match="another process held the database"):
            concurrency("L", timeout_seconds=0).__enter__()
        waiter.begins_to_enter("L", timeout_seconds=20)

    assert waiter.outcome("L", 20) == "done"
    assert _mode(store) == "wal"


def test_the_doctor_names_the_mode_of_a_store_without_log_and_repairs_it(programs: Cast, store: Path) -> None:
    _take_log_away(store)
    found = [each for each in doctor.examine(store.parent) if each.check == "log"]
    assert [(each.state, "'delete'" in each.text) for each in found] == [("note", True)]

    status, report = programs.command(sys.executable, "-m", "localconc", "doctor", "--repair").end(30)

    assert status == 0, report
    assert "All is well" in report
    assert _mode(store) == "wal"
