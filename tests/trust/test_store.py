# ruff: noqa: PT012, PT017, RUF043
"""A store that is damaged, missing, unwritable, foreign or full: it heals, or says what to do; it never admits more."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from localconc import create_limit, ensure_limit, read_limit, read_limits, update_limit
from localconc._engine import registry
from localconc._engine.core.errors import Busy
from localconc._engine.homes import home as home_module
from localconc._engine.homes.home import DATABASE_NAME, DEFINITIONS_LOG_NAME
from localconc._engine.store import migration
from localconc._engine.store.rows import schema
from localconc.errors import AcquireConcurrencySlotTimeoutError, StoreError
from localconc.sync import concurrency

from .inspection import assert_sound, held, wait_until
from .peers import Peer

#: A store of the first release (see tests/stores/version1); tests/faults tells what becomes of it.
VERSION_1 = Path(__file__).parent.parent / "stores" / "version1" / "in_use.db"

LINUX_ROOT = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small filesystem needs root on Linux"
)


def define(home: Path) -> Path:
    """A store with definitions that has been closed in good order; returns the database."""
    create_limit("gate", 1)
    create_limit("rate", 10, slot_decay_per_second=2.5)
    create_limit("idle", 7, active=False)
    for number in range(40):
        create_limit(f"filler {number}", number)
    registry.forget(home)
    database = home / DATABASE_NAME
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return database


def assert_definitions_survived() -> None:
    limits = {limit.name: limit for limit in read_limits()}
    assert len(limits) == 43
    assert limits["gate"].limit == 1
    assert limits["rate"].slot_decay_per_second == 2.5
    assert limits["idle"].active is False


def assert_limit_is_kept() -> None:
    with concurrency("gate", timeout_seconds=5), pytest.raises(AcquireConcurrencySlotTimeoutError):
        concurrency("gate", timeout_seconds=0).__enter__()


def assert_works_or_says_so(home: Path) -> str:
    """Either everything works with all definitions in place, or the error names the file."""
    try:
        assert_limit_is_kept()
        assert_definitions_survived()
    except StoreError as error:
        assert str(home) in str(error)
        return "refused"
    assert_sound(home)
    return "works"


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_garbage_is_set_aside_and_the_limits_are_there_again(
    home_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    define(home_directory).write_bytes(b"this is no database" * 500)
    assert_limit_is_kept()
    assert_definitions_survived()
    aside = [path for path in home_directory.iterdir() if ".damaged-20" in path.name]
    assert len(aside) == 1
    assert aside[0].read_bytes().startswith(b"this is no database")
    assert str(aside[0]) in caplog.text


def test_an_empty_file_is_healed(home_directory: Path) -> None:
    define(home_directory).write_bytes(b"")
    assert_limit_is_kept()
    assert_definitions_survived()


def test_a_directory_in_its_place_is_set_aside(home_directory: Path) -> None:
    database = define(home_directory)
    database.unlink()
    database.mkdir()
    (database / "something").touch()
    assert_limit_is_kept()
    assert_definitions_survived()


@pytest.mark.parametrize("table", ["slots", "limits", "meta", "waiters"])
def test_a_database_without_one_of_its_tables_is_healed(home_directory: Path, table: str) -> None:
    database = define(home_directory)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"DROP TABLE {table}")
    assert_limit_is_kept()
    assert_definitions_survived()


def truncate_at_every_page(home: Path, stride: int) -> int:
    database = define(home)
    whole = database.read_bytes()
    backup = home.with_name("backup")
    shutil.copytree(home, backup)
    sizes = range(0, len(whole), schema.PAGE_BYTES * stride)
    for size in sizes:
        restore(backup, home)
        os.truncate(database, size)
        assert assert_works_or_says_so(home) == "works", f"truncated to {size} bytes"
    return len(sizes)


def flip_a_bit_in_every_page(home: Path, offsets: list[int]) -> dict[str, int]:
    pages = len(define(home).read_bytes()) // schema.PAGE_BYTES
    return flip_bits(home, [(page * schema.PAGE_BYTES + offset, 0x10) for page in range(pages) for offset in offsets])


def flip_bits(home: Path, places: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Flip one bit after another, each in a fresh copy of a home; returns how often the copy was of use."""
    backup = home.with_name("backup")
    shutil.copytree(home, backup)
    outcomes = {"works": 0, "refused": 0}
    for place, bit in places:
        copy = home.with_name(f"flipped at {place}, {bit}")
        shutil.copytree(backup, copy)
        flip(copy / DATABASE_NAME, place, bit)
        os.environ["LOCALCONC_HOME"] = str(copy)
        try:
            outcomes[survive_a_flip()] += 1
        except BaseException as error:
            error.add_note(f"bit {bit} flipped in page {place // schema.PAGE_BYTES + 1} at {place % schema.PAGE_BYTES}")
            raise
        registry.forget(copy)
        shutil.rmtree(copy)
    return outcomes


def survive_a_flip() -> str:
    """A flipped bit may fall into a value that any database would believe: then nothing else may go wrong."""
    try:
        with concurrency("gate", timeout_seconds=0.5, limit=1):
            read_limits()
    except (StoreError, AcquireConcurrencySlotTimeoutError):
        return "refused"
    return "works"


def restore(backup: Path, home: Path) -> None:
    registry.forget(home)
    shutil.rmtree(home)
    shutil.copytree(backup, home)


def flip(path: Path, offset: int, bit: int = 0x10) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


def test_a_truncated_database_is_healed(home_directory: Path) -> None:
    assert truncate_at_every_page(home_directory, 4) > 3


@pytest.mark.sweep
def test_a_database_truncated_at_any_page_is_healed(home_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = truncate_at_every_page(home_directory, 1)
    with capsys.disabled():
        print(f"\ntruncated at {count} pages")


def test_a_flipped_bit_in_each_page_raises_nothing_unforeseen(home_directory: Path) -> None:
    outcomes = flip_a_bit_in_every_page(home_directory, [1])
    assert sum(outcomes.values()) > 20


@pytest.mark.sweep
def test_flipped_bits_all_over_the_pages_raise_nothing_unforeseen(
    home_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = flip_a_bit_in_every_page(home_directory, [0, 3, 5, 8, 9, 12, 50, 100, 166, 350, 500, 511])
    with capsys.disabled():
        print(f"\nflipped bits: {outcomes}")


@pytest.mark.sweep
def test_bits_flipped_anywhere_raise_nothing_unforeseen(
    home_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("LOCALCONC_TEST_SEED", random.randrange(2**32)))
    print(f"LOCALCONC_TEST_SEED={seed}")
    generator = random.Random(seed)
    size = len(define(home_directory).read_bytes())
    outcomes = flip_bits(
        home_directory, [(generator.randrange(size), 1 << generator.randrange(8)) for _ in range(1_000)]
    )
    with capsys.disabled():
        print(f"\nbits flipped anywhere: {outcomes}")


def test_a_schema_that_is_no_text_any_more_is_healed(home_directory: Path) -> None:
    database = define(home_directory)
    place = database.read_bytes().index(b"CREATE TRIGGER")
    registry.forget(home_directory)
    flip(database, place, 0x80)
    assert assert_works_or_says_so(home_directory) == "works"


@pytest.mark.parametrize("average", [None, "long", 0.0])
def test_a_limit_with_values_that_nobody_wrote_is_a_store_error(home_directory: Path, average: object) -> None:
    database = define(home_directory)
    registry.forget(home_directory)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE slots SET average = ? WHERE owner_id = 0", (average,))
    with pytest.raises(StoreError, match="malformed"):
        read_limits()


def test_a_damaged_store_that_others_use_is_not_healed_behind_them(home_directory: Path) -> None:
    define(home_directory)
    peer = Peer(home_directory)
    occupancy = peer.acquire("gate")
    peer.engine.store.database.close()
    for path in home_directory.glob(DATABASE_NAME + "*"):
        path.unlink()
    (home_directory / DATABASE_NAME).write_bytes(b"garbage" * 999)
    with pytest.raises(StoreError, match=f"pids {os.getpid()}"), concurrency("gate", timeout_seconds=1):
        pass
    del occupancy


def test_a_damaged_journal_loses_no_more_than_its_damaged_lines(home_directory: Path) -> None:
    define(home_directory).write_bytes(b"garbage" * 1000)
    journal = home_directory / DEFINITIONS_LOG_NAME
    lines = journal.read_bytes().splitlines(keepends=True)
    entries = [
        b"\xff\xfe nonsense\n",
        b"[1, 2]\n",
        b'{"name": 5}\n',
        b'{"name": "x"}\n',
        b'{"name": "y", "limit": "z"}\n',
    ]
    journal.write_bytes(b"".join([*entries, *lines, b'{"name": "half']))
    assert_limit_is_kept()
    assert_definitions_survived()


# ---- gone, moved, replaced -------------------------------------------------------------------------------------------


def test_a_deleted_database_is_restored_with_what_is_held(home_directory: Path) -> None:
    define(home_directory)
    peer = Peer(home_directory)
    with concurrency("gate"):
        for path in home_directory.glob(DATABASE_NAME + "*"):
            path.unlink()
        with pytest.raises((AcquireConcurrencySlotTimeoutError, StoreError)):
            peer.acquire("gate", timeout_seconds=0.2)
        registry.current().store.database.verify_after = 0.0
        with pytest.raises(AcquireConcurrencySlotTimeoutError):
            concurrency("gate", timeout_seconds=0.2).__enter__()
        assert held(home_directory) == 1
    wait_until(lambda: held(home_directory) == 0, "given back in the restored store")
    peer.release(peer.acquire("gate"))
    peer.close()
    assert_definitions_survived()


def test_a_deleted_home_is_made_anew_and_what_is_held_stays_held(home_directory: Path) -> None:
    define(home_directory)
    with concurrency("gate"):
        shutil.rmtree(home_directory)
        registry.current().store.database.verify_after = 0.0
        with pytest.raises(AcquireConcurrencySlotTimeoutError):
            concurrency("gate", timeout_seconds=0.2).__enter__()
    assert_limit_is_kept()
    assert read_limit("gate").limit == 1


def test_a_replaced_database_is_noticed_and_what_is_held_is_taken_along(home_directory: Path) -> None:
    database = define(home_directory)
    other = home_directory.with_name("other.db")
    shutil.copy(database, other)
    with concurrency("gate"):
        for path in home_directory.glob(DATABASE_NAME + "-*"):
            path.unlink()
        os.replace(other, database)
        registry.current().store.database.verify_after = 0.0
        with pytest.raises((AcquireConcurrencySlotTimeoutError, StoreError)):
            concurrency("gate", timeout_seconds=0.2).__enter__()
        assert held(home_directory) == 1
    wait_until(lambda: held(home_directory) == 0, "given back")
    assert_limit_is_kept()


# ---- can't be written ------------------------------------------------------------------------------------------------


@contextmanager
def mounted(place: Path, options: str, *arguments: str) -> Iterator[None]:
    """A small filesystem for the test, or a file."""
    if not place.exists():
        place.mkdir(parents=True)
    command = ["mount", *arguments, "-o", options, str(place)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        registry.forget_all()
        subprocess.run(["umount", str(place)], check=False)


@LINUX_ROOT
def test_a_full_disk_admits_nobody_and_says_so_and_giving_back_holds_in_the_end(home_directory: Path) -> None:
    with mounted(home_directory, "size=512k,mode=700", "-t", "tmpfs", "tmpfs"):
        create_limit("gate", 1)
        block = concurrency("gate")
        block.__enter__()
        filler = fill(home_directory / "filler")
        create_until_full()
        block.__exit__(None, None, None)
        with pytest.raises((StoreError, TimeoutError)):
            for number in range(200):
                ensure_limit(f"more {number}", number)
        filler.unlink()
        wait_until(lambda: held(home_directory) == 0, "given back once there is space", 5.0)
        assert_limit_is_kept()
        assert_sound(home_directory)


def fill(path: Path) -> Path:
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return path


def create_until_full() -> None:
    with pytest.raises(StoreError, match="full|space"):
        for number in range(2000):
            ensure_limit(f"name {number} " + "x" * 500, 1)


@LINUX_ROOT
def test_a_full_disk_before_the_first_opening_says_so(home_directory: Path) -> None:
    with mounted(home_directory, "size=16k,mode=700", "-t", "tmpfs", "tmpfs"):
        fill(home_directory / "filler")
        with pytest.raises(StoreError, match="space|full"), concurrency("gate", limit=1):
            pass


@LINUX_ROOT
def test_a_read_only_filesystem_says_so(home_directory: Path) -> None:
    define(home_directory)
    with mounted(home_directory, "bind", str(home_directory)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(home_directory)], check=True)
        with pytest.raises(StoreError, match="LOCALCONC_HOME|writ|permissions"), concurrency("gate", timeout_seconds=1):
            pass


@LINUX_ROOT
def test_a_database_that_is_a_mount_of_its_own_works_though_it_was_deleted_where_it_comes_from(
    home_directory: Path, tmp_path: Path
) -> None:
    define(home_directory)
    registry.forget_all()
    database, source = home_directory / DATABASE_NAME, tmp_path / "source"
    database.rename(source)
    database.touch()
    with mounted(database, "bind", str(source)):
        with concurrency("gate", timeout_seconds=3):
            source.unlink()
        with concurrency("gate", timeout_seconds=3):
            pass
        registry.forget_all()


def as_nobody(body: Callable[[], None]) -> None:
    """Run something in a child that has no rights of root's; what it asserts is asserted here."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            body()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_home_without_permission_says_so(reachable_home_directory: Path) -> None:
    home_directory = reachable_home_directory
    define(home_directory)
    os.chmod(home_directory, 0o500)

    def body() -> None:
        with pytest.raises(StoreError, match=str(home_directory)), concurrency("gate", timeout_seconds=1):
            pass

    as_nobody(body)


@LINUX_ROOT
def test_a_home_that_is_closed_to_this_user_says_so(reachable_home_directory: Path) -> None:
    home_directory = reachable_home_directory
    define(home_directory)

    def body() -> None:
        with (
            pytest.raises(StoreError, match=f"You do not have permission to use the home {home_directory}"),
            concurrency("gate"),
        ):
            pass

    as_nobody(body)


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of the process as Linux has them")
def test_a_file_that_must_not_grow_says_so(home_directory: Path) -> None:
    define(home_directory)

    def body() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        read_limits()
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        with pytest.raises((StoreError, TimeoutError)):
            for number in range(500):
                ensure_limit(f"more {number}", number)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert_limit_is_kept()
    assert_sound(home_directory)


# ---- versions --------------------------------------------------------------------------------------------------------


def set_version(database: Path, version: int) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def test_a_newer_store_is_left_alone_and_says_so(home_directory: Path) -> None:
    database = define(home_directory)
    set_version(database, schema.SCHEMA_VERSION + 1)
    before = database.read_bytes()
    with pytest.raises(StoreError, match="upgrade"), concurrency("gate"):
        pass
    assert database.read_bytes() == before
    assert not list(home_directory.glob("*.damaged-*"))


def test_a_migration_that_fails_changes_nothing(home_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home_directory.mkdir(mode=0o700)
    database = home_directory / DATABASE_NAME
    shutil.copyfile(VERSION_1, database)

    def fail(old: sqlite3.Connection, new: sqlite3.Connection, *_: object) -> None:
        new.execute("SELECT nonsense")

    with monkeypatch.context() as patched:
        patched.setattr(migration, "take_over", fail)
        with pytest.raises(StoreError), concurrency("gate", timeout_seconds=1):
            pass
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM slots").fetchone() != (0,)
    assert {"api", "database", "gpu", "idle"} <= {limit.name for limit in read_limits()}


# ---- where it lies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filesystem", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_network_filesystem_is_refused(
    home_directory: Path, monkeypatch: pytest.MonkeyPatch, filesystem: str
) -> None:
    monkeypatch.setattr(home_module, "filesystem_type", lambda directory: filesystem)
    with pytest.raises(StoreError, match=rf"network filesystem \({filesystem}\).*LOCALCONC_HOME"), concurrency("gate"):
        pass
    assert not (home_directory / DATABASE_NAME).exists()


def test_definitions_beside_the_database_follow_every_change(home_directory: Path) -> None:
    create_limit("gate", 1)
    update_limit("gate", limit=3)
    update_limit("gate", name="door")
    lines = [json.loads(line) for line in (home_directory / DEFINITIONS_LOG_NAME).read_text().splitlines()]
    assert lines[-1]["name"] == "door"
    assert lines[-1]["limit"] == 3
    assert {"name": "gate", "deleted": True} in lines


def test_a_store_held_up_for_good_ends_in_a_timeout(home_directory: Path) -> None:
    define(home_directory)
    with closing(sqlite3.connect(home_directory / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(AcquireConcurrencySlotTimeoutError, match="another process held the database"):
            concurrency("gate", timeout_seconds=0.2).__enter__()
        other.execute("ROLLBACK")
    assert_limit_is_kept()


def test_a_store_that_is_busy_while_it_is_opened_is_opened_once(
    home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(home_directory)
    registry.forget_all()
    opened: list[Path] = []  # other homes, too: what an earlier test left behind is released in the background

    class Noted(sqlite3.Connection):
        def __init__(self, path: Path, **options: Any) -> None:
            opened.append(path)
            super().__init__(path, **options)

    with closing(sqlite3.connect(home_directory / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(sqlite3, "Connection", Noted)
        for _ in range(3):
            with pytest.raises(Busy):
                registry.current().store.database.ensure_open()
        other.execute("ROLLBACK")
    assert_limit_is_kept()
    assert [path for path in opened if home_directory in Path(path).parents] == [home_directory / DATABASE_NAME]
