# ruff: noqa: PT017
"""Private from the first moment, and unimpressed by names, signals, links and rows that somebody meant harm with."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from localconc import create_limit, delete_limit, read_holders, read_limit, read_limits, read_waiters
from localconc._engine import registry
from localconc._engine.homes.home import DATABASE_NAME, DEFINITIONS_LOG_NAME, MAINTENANCE_LOCK_NAME
from localconc.errors import LocalconcError, StoreError
from localconc.events import read_events
from localconc.sync import concurrency
from tests.kit.systems import needs_sockets

from .inspection import assert_sound, held, rows, wait_until, waiting

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")


@POSIX
def test_home_and_files_are_private_even_with_no_umask(home_directory: Path) -> None:
    before = os.umask(0)
    try:
        with concurrency("gate", limit=1):
            entries = [home_directory, *home_directory.rglob("*")]
    finally:
        os.umask(before)
    assert len(entries) > 4
    for path in entries:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path} has mode {mode:o}"


@POSIX
@pytest.mark.parametrize("name", [DATABASE_NAME, MAINTENANCE_LOCK_NAME, DEFINITIONS_LOG_NAME, "localconc.new"])
def test_a_planted_link_is_not_followed(home_directory: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    home_directory.mkdir(mode=0o700)
    (home_directory / name).symlink_to(victim)
    try:
        with concurrency("gate", limit=1):
            pass
    except StoreError as error:
        assert str(home_directory) in str(error)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE slots; --", '" OR 1=1', "../../etc", "\x00", "名前", "a" * 5000, "%s{0}", "-rf", "\n", " "]
)
def test_a_name_is_only_a_name(home_directory: Path, name: str) -> None:
    try:
        created = create_limit(name, 1)
    except ValueError:
        return  # refused before the store was touched
    with concurrency(name, timeout_seconds=0):
        assert read_holders(name)[0].name == name
    assert read_limit(name).id == created.id
    registry.forget(home_directory)
    delete_limit(name)
    assert not [path for path in home_directory.parent.iterdir() if path != home_directory]
    assert_sound(home_directory)


@needs_sockets
@POSIX
def test_a_wakeup_from_somebody_else_admits_nobody(home_directory: Path) -> None:
    create_limit("gate", 1)
    inside = threading.Event()

    def wait_in_line() -> None:
        with concurrency("gate"):
            inside.set()

    thread = threading.Thread(target=wait_in_line)
    with concurrency("gate"):
        thread.start()
        wait_until(lambda: waiting(home_directory), "it waits")
        address = rows(home_directory, "SELECT address FROM waiters")[0][0]
        owners = os.open(home_directory / "owners", os.O_RDONLY)  # the path may be too long for an address
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as foreign:
            for text in (b"1", b"0", b"1 7 1.0 1.0", b"", b"garbage", b"9" * 32, b"\xff" * 1000):
                foreign.sendto(text, f"/proc/self/fd/{owners}/{address}")
        os.close(owners)
        assert not inside.wait(0.2)
        assert held(home_directory) == 1
    thread.join(10)
    assert inside.is_set()


HOSTILE_TEXTS = [
    "",
    "nonsense",
    "null",
    "[]",
    '{"names": 5}',
    "[" * 5000,
    '{"names": ["gate"], "slots": 1e999}',
    "__import__('os').system('touch pwned')",
    "x" * 200_000,
]


@pytest.mark.parametrize(
    "column", ["request", "limit_ids", "address", "secret", "thread", "answer", "slots", "state", "limit_id", "stops"]
)
def test_a_hostile_row_runs_nothing_and_raises_no_more_than_a_store_error(
    home_directory: Path, column: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    create_limit("gate", 1)
    unforeseen = []
    for text in HOSTILE_TEXTS:
        plant(home_directory, column, text)
        for look in (read_waiters, read_limits, read_holders, read_events, enter_once):
            try:
                look()
            except LocalconcError:
                pass
            except Exception as error:
                unforeseen.append(f"{look.__name__} of {column}={text[:30]!r}: {error!r}")
    assert not (tmp_path / "pwned").exists()
    assert unforeseen == []


def enter_once() -> None:
    with concurrency("gate", timeout_seconds=0.05):
        pass


def plant(home: Path, column: str, text: str) -> None:
    """Write a waiter as another user of a shared home could."""
    with closing(sqlite3.connect(home / DATABASE_NAME)) as connection, connection:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'waiters'"
        ).fetchall()
        for name, _ in triggers:  # whoever can write the file can do without them
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM waiters")
        connection.execute("DELETE FROM queue")
        fields = {
            "ticket": 1,
            "owner_id": 999,
            "serial": 1,
            "state": 0,
            "slots": 1,
            "request": "concurrency/1/1/None/None/0/gate",
            "limit_id": 1,
            "thread": "hostile",
            "context": 0,
            "address": "localconc-x",
            "secret": 1,
            "waiting_since": 1.0,
            "enqueued_boot": 1.0,
        }
        fields[column] = text
        for _, name, _, required, _, _ in connection.execute("PRAGMA table_info(waiters)").fetchall():
            if required and name not in fields:
                fields[name] = "hostile"
        marks = ", ".join("?" * len(fields))
        connection.execute(f"INSERT INTO waiters ({', '.join(fields)}) VALUES ({marks})", tuple(fields.values()))
        connection.execute("INSERT INTO queue VALUES (1, 1)")
        for _, statement in triggers:
            connection.execute(statement)


def test_a_time_that_never_was_is_a_store_error(home_directory: Path) -> None:
    create_limit("gate", 1)
    with closing(sqlite3.connect(home_directory / DATABASE_NAME)) as connection, connection:
        connection.execute("UPDATE limits SET created = 1e300")
    with pytest.raises(StoreError, match=r"A moment in the database is malformed \('1e\+300'\)"):
        read_limits()


def test_a_trigger_planted_by_another_user_can_call_nothing_dangerous(home_directory: Path) -> None:
    create_limit("gate", 1)
    connection = registry.current().store.database._connection
    assert connection is not None
    assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)


def test_a_link_planted_in_a_shared_home_leads_nowhere_and_opens_nothing(home_directory: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    home_directory.mkdir()
    home_directory.chmod(0o2770)
    (home_directory / "owners").symlink_to(private)
    with pytest.raises(StoreError, match="owners is a symbolic link"):
        create_limit("gate", 1)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert list(private.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="playing two users needs root")
@pytest.mark.parametrize("mode", [0o770, 0o2770])
def test_users_of_one_group_share_a_home_whatever_their_own_groups_are(
    reachable_home_directory: Path, mode: int
) -> None:
    home_directory = reachable_home_directory
    home_directory.mkdir()
    os.chown(home_directory, 0, 7777)
    home_directory.chmod(mode)
    told, tell = os.pipe()
    first = as_user(5001, 7777, lambda: hold_until_told("gate", told))
    wait_until(lambda: (home_directory / DATABASE_NAME).exists() and held(home_directory) == 1, "the first user is in")
    second = as_user(5002, 7777, try_in_vain_and_wait_for_the_slot)
    wait_until(lambda: waiting(home_directory) == 1, "the second user waits")
    os.write(tell, b"!")
    for pid in (first, second):
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert stat.S_IMODE(home_directory.stat().st_mode) == mode


def as_user(user: int, group: int, work: Callable[[], None]) -> int:
    """Do something in a child process of another user, who is in a group besides the own one."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([group])
            os.setgid(user)
            os.setuid(user)
            work()
            status = 0
        finally:
            registry.forget_all()
            os._exit(status)
    return pid


def hold_until_told(name: str, told: int) -> None:
    with concurrency(name, limit=1):
        os.read(told, 1)


def try_in_vain_and_wait_for_the_slot() -> None:
    with pytest.raises(TimeoutError):
        concurrency("gate", timeout_seconds=0).__enter__()
    with concurrency("gate", timeout_seconds=20):
        pass
