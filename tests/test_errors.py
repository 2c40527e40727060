"""What an error of SQLite or of the system is turned into."""

from __future__ import annotations

import copy
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from localconc import ensure_limit
from localconc._engine.core import errors
from localconc._engine.core.errors import Busy, Damaged, explained
from localconc.errors import AcquireConcurrencySlotTimeoutError, StoreError
from localconc.sync import acquire, concurrency
from localconc.testing import virtual_clock

PATH = Path("/home/somebody/limits/localconc.db")


class Named(sqlite3.OperationalError):
    """An error of a module that tells names, but no numbers."""

    sqlite_errorcode = None
    sqlite_errorname = ""


def error_of(code: int, text: str = "it failed") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "name",
    ["ERROR", "PERM", "BUSY", "LOCKED", "READONLY", "IOERR", "CORRUPT", "FULL", "CANTOPEN", "PROTOCOL", "NOTADB"],
)
def test_the_numbers_are_those_of_sqlite(name: str) -> None:
    assert getattr(errors, name) == getattr(sqlite3, f"SQLITE_{name}")


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_BUSY_SNAPSHOT])
def test_a_store_that_others_use_is_busy(code: int) -> None:
    assert isinstance(explained(error_of(code), PATH), Busy)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR_SHORT_READ])
def test_a_file_that_is_no_database_is_damaged(code: int) -> None:
    assert isinstance(explained(error_of(code), PATH), Damaged)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (sqlite3.SQLITE_FULL, "free some space"),
        (sqlite3.SQLITE_READONLY, "make the file and its directory writable"),
        (sqlite3.SQLITE_CANTOPEN, "check the permissions"),
        (sqlite3.SQLITE_IOERR, "check whether the disk"),
        (sqlite3.SQLITE_MISUSE, "move it away"),
    ],
)
def test_any_other_error_says_what_to_do(code: int, remedy: str) -> None:
    error = explained(error_of(code), PATH)
    assert isinstance(error, StoreError)
    assert remedy in str(error)
    assert str(PATH) in str(error)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("SQLITE_BUSY", Busy), ("SQLITE_CORRUPT", Damaged), ("SQLITE_FULL", StoreError), ("SQLITE_NEW", StoreError)],
)
def test_without_its_number_an_error_is_known_by_its_name(name: str, kind: type[Exception]) -> None:
    error = Named("it failed")
    error.sqlite_errorname = name
    assert isinstance(explained(error, PATH), kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("database is locked", Busy),
        ("database disk image is malformed", Damaged),
        ("file is not a database", Damaged),
        ("no such table: limits", Damaged),
        ("attempt to write a readonly database", StoreError),
        ("something else", StoreError),
    ],
)
def test_without_number_and_name_an_error_is_known_by_its_text(text: str, kind: type[Exception]) -> None:
    assert isinstance(explained(Named(text), PATH), kind)


def test_a_directory_in_the_place_of_the_database_is_damage(tmp_path: Path) -> None:
    assert isinstance(explained(error_of(sqlite3.SQLITE_CANTOPEN), tmp_path), Damaged)


def test_an_error_of_the_system_names_the_home_and_the_file() -> None:
    error = explained(PermissionError(13, "Permission denied", str(PATH)), PATH)
    assert isinstance(error, StoreError)
    assert str(PATH.parent) in str(error)
    assert "Permission denied" in str(error)


def test_a_path_that_is_not_unicode_can_be_spoken_of() -> None:
    path = Path("/home/caf\udce9/localconc.db")
    for error in (error_of(sqlite3.SQLITE_FULL), OSError(28, "No space left on device", str(path))):
        assert str(explained(error, path)).encode()


PYSQLITE = """
import sys
import pysqlite3
sys.modules["sqlite3"] = pysqlite3
import sqlite3
from pathlib import Path
from localconc._engine.core.errors import Busy, Damaged, explained
path = Path(sys.argv[1])
one, other = (sqlite3.connect(path, timeout=0, isolation_level=None) for _ in range(2))
one.execute("BEGIN IMMEDIATE")
try:
    other.execute("BEGIN IMMEDIATE")
except sqlite3.Error as error:
    assert isinstance(explained(error, path), Busy), explained(error, path)
    print("busy")
one.execute("COMMIT")
path.write_bytes(b"no database" * 1000)
try:
    sqlite3.connect(path).execute("SELECT * FROM sqlite_master")
except sqlite3.Error as error:
    assert isinstance(explained(error, path), Damaged), explained(error, path)
    print("damaged")
"""


def test_another_module_in_the_place_of_sqlite3_has_its_errors_understood(tmp_path: Path) -> None:
    pytest.importorskip("pysqlite3")
    ran = subprocess.run(
        [sys.executable, "-c", PYSQLITE, str(tmp_path / "db")], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "busy\ndamaged\n"


# ---- time-outs -------------------------------------------------------------------------------------------------------


def _time_out(label: str) -> AcquireConcurrencySlotTimeoutError:
    with (
        concurrency("L", limit=1, label=label),
        pytest.raises(AcquireConcurrencySlotTimeoutError) as raised,
        concurrency("L", timeout_seconds=0),
    ):
        pass
    return raised.value


def test_a_time_out_tells_the_holders_of_that_moment_however_late_they_are_read() -> None:
    error = _time_out("the holder")

    assert [holder.label for holder in error.holders] == ["the holder"]
    assert error.holders is error.holders


@pytest.mark.parametrize("is_read", [False, True])
def test_a_copied_or_pickled_time_out_has_the_same_holders(*, is_read: bool) -> None:
    error = _time_out("the holder")
    if is_read:
        assert error.holders

    for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (str(other), other.names, other.requests_ahead) == (str(error), ("L",), 0)
        assert other.holders == error.holders
        assert len(other.holders) == 1


def test_a_time_out_that_is_made_by_hand_has_holders_of_its_own() -> None:
    one, other = AcquireConcurrencySlotTimeoutError("late"), AcquireConcurrencySlotTimeoutError("late")
    one.holders.append("somebody")  # type: ignore[arg-type]

    assert other.holders == []
    other.holders = []
    assert copy.copy(other).holders == []


def test_a_time_out_names_the_present_holders_even_if_they_began_at_the_same_moment_as_the_former_ones() -> None:
    with virtual_clock():
        ensure_limit("db", 8)
        handles = [acquire("db", label=f"holder {number}") for number in range(8)]
        seen = []
        for label in ("second", "third"):
            with pytest.raises(AcquireConcurrencySlotTimeoutError) as raised, concurrency("db", timeout_seconds=0):
                pass
            seen.append({holder.label for holder in raised.value.holders})
            handles.pop().release()
            handles.append(acquire("db", label=label))

    assert "holder 7" in seen[0]
    assert "second" in seen[1]
    assert "holder 7" not in seen[1]
