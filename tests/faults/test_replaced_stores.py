"""Whatever happens to the files under running processes, nothing is held twice and nothing stays taken."""

from __future__ import annotations

import _thread
import os
import shutil
import sqlite3
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from localconc import ensure_limit, read_holders, read_limits
from localconc._engine import registry
from localconc._engine.store.files import anchors
from localconc._engine.store.store import Transaction
from localconc.errors import AcquireConcurrencySlotTimeoutError, StoreError
from localconc.sync import acquire, concurrency
from tests.faults.programs import Cast, Puppet, until
from tests.kit.systems import needs_fork

#: A process looks ten times within this whether its store is still in its place.
NOTICED_WITHIN_SECONDS = 0.1

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, for chroot, mounts and other users"
)


def _back_up(home: Path) -> Path:
    backup = home / "backup.db"
    with sqlite3.connect(home / "localconc.db") as source, sqlite3.connect(backup) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = WAL")
    source.close()
    copy.close()
    return backup


def _store_of_another_home(programs: Cast, home: Path) -> Path:
    """A store with the same limits, whose rows have other numbers."""
    elsewhere = home.with_name("elsewhere")
    programs.python(
        "import os, sys\nos.environ['LOCALCONC_HOME'] = sys.argv[1]\nfrom localconc import ensure_limit\n"
        "for name in ('first', 'second', 'other', 'L'): ensure_limit(name, 1)",
        elsewhere,
    ).finish()
    return _back_up(elsewhere)


def _put_back(home: Path, backup: Path, how: str) -> None:
    if how == "moved":
        os.replace(backup, home / "localconc.db")
    else:
        shutil.copyfile(backup, home / "localconc.db")
    _remove_sidecars(home)
    time.sleep(NOTICED_WITHIN_SECONDS)


def _remove_sidecars(home: Path) -> None:
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            (home / f"localconc.db{suffix}").unlink()


def _doctor_is_content(programs: Cast) -> None:
    status, report = programs.command(sys.executable, "-m", "localconc", "doctor").end(30)
    assert status == 0, report


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_after_a_backup_was_put_back_the_store_learns_what_a_process_really_holds(
    how: str, programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("L", 1)
    ensure_limit("M", 1)
    process = programs.puppet()
    process.must_enter("M")
    backup = _back_up(home)
    process.leave("M")
    process.must_enter("L")

    _put_back(home, backup, how)
    process.must_enter("other", limit=1)

    assert [(holder.name, holder.pid) for holder in read_holders()] == [("L", process.pid), ("other", process.pid)]
    another = programs.puppet()
    assert not another.enters("L")
    assert another.enters("M")
    process.leave("L")
    assert another.enters("L")


def test_after_a_backup_of_the_whole_home_was_put_back_those_who_held_hold(
    programs: Cast, localconc_home_directory: Path
) -> None:
    """The copies of the owners' files are locked by nobody, though the owners live."""
    home = localconc_home_directory
    idle, dead = programs.puppet(), programs.puppet()
    idle.must_enter("L", limit=1)
    dead.must_enter("M", limit=1)
    backup = home.with_name("backup")
    shutil.copytree(home, backup)

    shutil.rmtree(home)
    backup.rename(home)
    dead.kill()

    newcomer = programs.puppet()
    assert not newcomer.enters("L"), "two hold a limit of 1"
    assert newcomer.enters("M")
    idle.leave("L")
    assert newcomer.enters("L", timeout_seconds=2)
    newcomer.leave("L")
    idle.must_enter("L")
    idle.kill()
    assert newcomer.enters("L", timeout_seconds=2)
    _doctor_is_content(programs)


def test_after_a_backup_was_put_back_threads_that_wait_are_served(
    programs: Cast, localconc_home_directory: Path
) -> None:
    """Served, or told with an error that they have to call again: not left to wait for good."""
    home = localconc_home_directory
    ensure_limit("L", 1)
    holder, waiter = programs.puppet(), programs.puppet()
    backup = _back_up(home)
    holder.must_enter("L")
    waiter.begins_to_enter("L")
    until(lambda: waiter.evaluate("len(localconc.read_waiters())") == 1, "it waits")

    _put_back(home, backup, "moved")
    holder.leave("L")

    outcome = waiter.outcome("L", 8)
    assert outcome == "done" or outcome[0] == "StoreError"
    newcomer = programs.puppet()
    if outcome == "done":
        assert not newcomer.enters("L")
        waiter.leave("L")
    assert newcomer.enters("L", timeout_seconds=2)


@pytest.mark.skipif(sys.platform == "win32", reason="open files can't be moved there")
@pytest.mark.parametrize("change", ["replaced", "deleted", "log deleted", "home moved", "home replaced"])
def test_a_change_is_noticed_after_the_files_were_in_place_even_if_the_home_has_its_old_date(
    change: str, localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever puts a backup back with `rsync -a` or `cp -a` sets the date of the directory, too."""
    home = localconc_home_directory
    ensure_limit("L", 1)
    store_of_before = registry.current().store.database._anchors
    assert store_of_before is not None
    monkeypatch.setattr(anchors, "FINE_TIMES_SECONDS", -3_600.0)  # else it looks at all files again for a while
    looked_at: list[str] = []
    stat = os.stat
    monkeypatch.setattr(anchors.os, "stat", lambda path, **how: looked_at.append(path) or stat(path, **how))
    assert store_of_before.are_in_place()
    assert len(looked_at) == 4
    assert store_of_before.are_in_place()
    assert looked_at[4:] == [str(home)]
    date = stat(home)

    if change == "replaced":
        shutil.copyfile(home / "localconc.db", home / "copy.db")
        os.replace(home / "copy.db", home / "localconc.db")
    elif change == "deleted":
        (home / "localconc.db").unlink()
    elif change == "log deleted":
        (home / "localconc.db-wal").unlink()
    else:
        home.rename(home.with_name("elsewhere"))
        if change == "home replaced":
            shutil.copytree(home.with_name("elsewhere"), home)
    if home.exists():
        os.utime(home, ns=(date.st_atime_ns, date.st_mtime_ns))

    assert not store_of_before.are_in_place()


@pytest.mark.parametrize("how", ["a backup put back", "another store", "deleted", "deleted, and restored by another"])
def test_leaving_a_block_as_the_first_act_after_the_store_was_replaced_frees_the_slot(
    how: str, programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("L", 1)
    process, another = programs.puppet(), programs.puppet()
    process.must_enter("L")
    another.must_enter("other", limit=1)

    if how == "a backup put back":
        _put_back(home, _back_up(home), "moved")
    elif how == "another store":
        _put_back(home, _store_of_another_home(programs, home), "moved")
    else:
        (home / "localconc.db").unlink()
        _remove_sidecars(home)
        time.sleep(NOTICED_WITHIN_SECONDS)
    if how == "deleted, and restored by another":
        another.must_enter("other 2", limit=1)
    process.leave("L")

    assert another.enters("L", timeout_seconds=2)
    assert [holder.pid for holder in read_holders("L")] == [another.pid]


# ---- the log and SQLite's locks --------------------------------------------------------------------------------------


def test_a_log_that_was_removed_is_noticed_and_nothing_is_held_twice(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("L", 1)
    process, idle = programs.puppet(), programs.puppet()
    idle.must_enter("other", limit=5)
    process.must_enter("L")

    _remove_sidecars(home)
    time.sleep(NOTICED_WITHIN_SECONDS)
    process.must_enter("other")

    newcomer = programs.puppet()
    assert not newcomer.enters("L"), "two hold a limit of 1"
    assert not idle.enters("L"), "two hold a limit of 1"
    process.leave("L")
    assert idle.enters("L", timeout_seconds=2)
    assert not newcomer.enters("L"), "two hold a limit of 1"
    assert [holder.pid for holder in read_holders("L")] == [idle.pid]
    _doctor_is_content(programs)


def test_after_a_log_was_removed_a_newcomer_and_a_process_of_before_see_each_other(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("L", 1)
    before = programs.puppet()
    before.must_enter("other", limit=5)
    before.leave("other")

    _remove_sidecars(home)
    newcomer = programs.puppet()
    newcomer.must_enter("L")
    time.sleep(NOTICED_WITHIN_SECONDS)

    assert not before.enters("L"), "two hold a limit of 1"
    newcomer.leave("L")
    assert before.enters("L", timeout_seconds=2)
    assert not newcomer.enters("L"), "two hold a limit of 1"


@pytest.mark.parametrize("is_known_without_the_log", [True, False])
def test_a_process_that_comes_over_to_the_log_of_others_notes_there_what_it_holds(
    is_known_without_the_log: bool, programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("L", 1)
    before = programs.puppet()
    if is_known_without_the_log:
        before.run("localconc.ensure_limit('other', 5)")  # which brings the log into the database
    before.must_enter("other", limit=5)
    _remove_sidecars(home)
    newcomer = programs.puppet()
    newcomer.must_enter("L")
    log = os.stat(home / "localconc.db-wal").st_ino
    time.sleep(NOTICED_WITHIN_SECONDS)

    before.must_enter("another", limit=5)

    assert os.stat(home / "localconc.db-wal").st_ino == log
    held = {(holder.name, holder.pid) for holder in read_holders()}
    assert held == {("L", newcomer.pid), ("other", before.pid), ("another", before.pid)}
    before.finish()
    assert not programs.puppet().enters("L"), "two hold a limit of 1"
    newcomer.leave("L")
    _doctor_is_content(programs)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has locks that keep SQLite from removing such a log")
def test_a_process_that_comes_over_to_the_log_of_another_one_that_is_dead_does_not_undo_what_that_did(
    programs: Cast, localconc_home_directory: Path
) -> None:
    before = programs.puppet()
    before.must_enter("other", limit=5)
    before.leave("other")
    _remove_sidecars(localconc_home_directory)
    newcomer = programs.puppet()
    newcomer.run("for number in range(50): localconc.ensure_limit(f'new {number}', 1 + number)")
    newcomer.run("localconc.update_limit('new 7', active_slots=2)")
    newcomer.kill()
    time.sleep(NOTICED_WITHIN_SECONDS)

    before.must_enter("other", limit=5)

    shown = {each.name: (each.limit, each.active_slots) for each in read_limits()}
    assert shown == {f"new {n}": (1 + n, 2 if n == 7 else 0) for n in range(50)} | {"other": (5, 1)}
    before.leave("other")
    _doctor_is_content(programs)


def _remove(home: Path, what: str) -> None:
    for suffix in what.split():
        (home / f"localconc.db{suffix}").unlink()


@pytest.mark.parametrize(
    "what", ["-wal", *(pytest.param(each, marks=pytest.mark.sweep) for each in ("-shm", "-wal -shm"))]
)
@pytest.mark.parametrize("first", ["a newcomer", "the doctor, and a newcomer", "a process that was there before"])
def test_what_an_idle_process_holds_outlives_the_removal_of_the_log(
    what: str, first: str, programs: Cast, localconc_home_directory: Path
) -> None:
    another = programs.puppet()
    another.must_enter("other", limit=5)
    idle = programs.puppet()
    idle.must_enter("L", limit=1)

    _remove(localconc_home_directory, what)
    if first == "the doctor, and a newcomer":
        status, report = programs.command(sys.executable, "-m", "localconc", "doctor").end(30)
        assert what == "-shm" or (status != 0 and str(idle.pid) in report), report
    time.sleep(NOTICED_WITHIN_SECONDS)
    asker = another if first == "a process that was there before" else programs.puppet()

    assert not asker.enters("L"), "two hold a limit of 1"
    asker.must_enter("M", limit=1)
    assert {(holder.name, holder.pid) for holder in read_holders()} == {
        ("L", idle.pid),
        ("M", asker.pid),
        ("other", another.pid),
    }
    idle.leave("L")
    assert asker.enters("L", timeout_seconds=2)
    assert not idle.enters("L"), "two hold a limit of 1"
    _doctor_is_content(programs)


def test_the_doctors_repair_brings_a_removed_log_back(programs: Cast, localconc_home_directory: Path) -> None:
    idle = programs.puppet()
    idle.must_enter("L", limit=1)
    _remove_sidecars(localconc_home_directory)

    programs.command(sys.executable, "-m", "localconc", "doctor", "--repair").finish(30)

    _doctor_is_content(programs)
    assert [(holder.name, holder.pid) for holder in read_holders()] == [("L", idle.pid)]


@needs_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_removed_log_that_cannot_be_read_is_an_error_and_nobody_is_admitted(
    programs: Cast, localconc_home_directory: Path
) -> None:
    idle = programs.puppet()
    idle.must_enter("L", limit=1)
    _remove_sidecars(localconc_home_directory)
    confined = programs.puppet(prefix=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"))

    answer = confined.do("enter", "L", timeout_seconds=1)
    assert answer[0] == "StoreError"
    assert str(idle.pid) in answer[1]

    idle.must_enter("M", limit=1)  # it notes what it holds
    assert not confined.enters("L"), "two hold a limit of 1"
    idle.leave("L")
    assert confined.enters("L", timeout_seconds=2)


@needs_fork
def test_a_log_that_the_last_one_to_close_it_removed_is_not_missed(
    programs: Cast, localconc_home_directory: Path
) -> None:
    """What a process holds whose connection is closed (it has forked), or that has ended before its command."""
    forked = programs.puppet()
    forked.must_enter("L", limit=1)
    run = (sys.executable, "-m", "localconc", "run", "M", "--limit", "1", "--", "sh", "-c", "echo in; exec cat")
    command = programs.command(*run)
    assert command.hear() == "in"
    command.kill()
    forked.run("if (pid := os.fork()) == 0: os._exit(0)\nos.waitpid(pid, 0)")
    _ends_after_one_use(programs)
    assert not (localconc_home_directory / "localconc.db-wal").exists()

    newcomer = programs.puppet()
    assert not newcomer.enters("L"), "two hold a limit of 1"
    assert not newcomer.enters("M"), "two hold a limit of 1"


@needs_fork
@needs_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_container_does_not_miss_the_log_of_a_process_that_closed_it(
    programs: Cast, localconc_home_directory: Path
) -> None:
    forked = programs.puppet()
    forked.must_enter("L", limit=1)
    forked.run("if (pid := os.fork()) == 0: os._exit(0)\nos.waitpid(pid, 0)")
    assert not (localconc_home_directory / "localconc.db-wal").exists()

    confined = programs.puppet(prefix=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"))
    assert not confined.enters("L"), "two hold a limit of 1"


_READS_THE_HOME = {
    "a copy of the tree": "import shutil\nshutil.copytree(localconc.home(), os.environ['COPY'], dirs_exist_ok=True)",
    "a plain read": "for path in localconc.home().glob('localconc.db*'): path.read_bytes()",
}


@pytest.mark.parametrize("reading", list(_READS_THE_HOME))
def test_a_process_that_read_the_files_of_its_home_holds_nothing_twice(
    reading: str, programs: Cast, localconc_home_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing a file drops all locks that the process has on it, SQLite's included: POSIX wants it so."""
    monkeypatch.setenv("COPY", str(tmp_path / "copy"))
    process = programs.puppet()  # and no other process has the store open
    process.run("localconc.ensure_limit('L', 1)")
    process.must_enter("other", limit=5)
    process.run(_READS_THE_HOME[reading])
    time.sleep(NOTICED_WITHIN_SECONDS)
    _ends_after_one_use(programs)

    time.sleep(NOTICED_WITHIN_SECONDS)
    process.must_enter("L")

    assert not programs.puppet().enters("L"), "two hold a limit of 1"
    _ends_after_one_use(programs)
    assert not programs.puppet().enters("L"), "two hold a limit of 1"
    process.leave("L")
    assert programs.puppet().enters("L", timeout_seconds=2)
    _doctor_is_content(programs)


def test_what_a_process_held_when_its_home_was_copied_stays_held(
    programs: Cast, localconc_home_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPY", str(tmp_path / "copy"))
    process = programs.puppet()
    process.must_enter("L", limit=1)
    process.run(_READS_THE_HOME["a copy of the tree"])

    for _ in range(3):
        _ends_after_one_use(programs)
        assert not programs.puppet().enters("L"), "two hold a limit of 1"
    time.sleep(NOTICED_WITHIN_SECONDS)
    process.leave("L")
    assert programs.puppet().enters("L", timeout_seconds=2)


def _ends_after_one_use(programs: Cast) -> None:
    programs.python("from localconc.sync import concurrency\nwith concurrency('other', limit=5): pass").finish()


# ---- a path that can't be seen any more ------------------------------------------------------------------------------


def _is_kept_out_or_told(process: Puppet, name: str) -> None:
    answer = process.do("enter", name, timeout_seconds=1)
    assert answer[0] in ("AcquireConcurrencySlotTimeoutError", "StoreError"), answer


@needs_root
def test_a_process_that_went_into_a_jail_leaves_the_living_store_alone(
    programs: Cast, localconc_home_directory: Path, tmp_path: Path
) -> None:
    ensure_limit("L", 1)
    ensure_limit("M", 1)
    outside, jailed = programs.puppet(), programs.puppet()
    outside.must_enter("L")
    jailed.must_enter("M")
    jailed.do("enter", "L", timeout_seconds=0.01)  # what it will need is loaded now
    jail = tmp_path / "jail"
    jail.mkdir()

    jailed.run(f"os.chroot({str(jail)!r}); os.chdir('/')")
    time.sleep(NOTICED_WITHIN_SECONDS)
    _is_kept_out_or_told(jailed, "L")

    assert list(jail.rglob("*.db")) == [], "a copy in the jail"
    assert [(holder.name, holder.pid) for holder in read_holders()] == [("L", outside.pid), ("M", jailed.pid)]
    assert not outside.enters("M")
    outside.leave("L")
    assert programs.puppet().enters("L", timeout_seconds=2)
    jailed.kill()
    assert outside.enters("M", timeout_seconds=2)


@needs_root
@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("nsenter"), reason="needs unshare and nsenter")
def test_a_home_that_was_unmounted_lazily_is_not_built_anew_under_those_who_use_it(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    home.mkdir()
    script = 'mount -t tmpfs none "$LOCALCONC_HOME" && exec "$0" "$@"'
    mounted = programs.puppet(prefix=("unshare", "--mount", "sh", "-c", script))
    another = programs.puppet(prefix=("nsenter", "--mount", "--target", str(mounted.own_pid)))
    mounted.must_enter("L", limit=1)
    another.must_enter("M", limit=1)

    mounted.run("import subprocess\nsubprocess.run(['umount', '-l', os.environ['LOCALCONC_HOME']], check=True)")
    time.sleep(NOTICED_WITHIN_SECONDS)
    _is_kept_out_or_told(another, "L")
    _is_kept_out_or_told(mounted, "M")

    assert not (home / "localconc.db").exists(), "a second store where the first was mounted"


@pytest.mark.parametrize("names", [("mine",), ("mine", "ours")], ids=["one limit", "two limits"])
def test_the_first_call_in_another_store_takes_no_limit_that_only_has_the_number_of_one_it_knew(
    programs: Cast, localconc_home_directory: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        ensure_limit(name, 5)
    for _ in range(2):  # from the second on, by the fast statements
        with concurrency(names):
            pass
    localconc_home_directory.rename(localconc_home_directory.with_name("aside"))
    time.sleep(NOTICED_WITHIN_SECONDS)
    programs.python("from localconc import ensure_limit\nfor name in ('theirs', 'too'): ensure_limit(name, 5)").finish()
    with concurrency(names) as occupancy:
        assert [limit.name for limit in read_limits() if limit.active_slots] == []
    assert occupancy.limits == ()


def test_a_home_that_is_opened_by_another_path_too_lets_nobody_into_a_transaction(
    programs: Cast, localconc_home_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens and closes a file drops all locks that its process has on it, those of a transaction, too."""
    ensure_limit("first", 1)
    engine = registry.current()
    alias = tmp_path / "alias"
    alias.symlink_to(localconc_home_directory)
    is_inside, may_end = threading.Event(), threading.Event()

    def work(txn: Transaction) -> None:
        txn.ledger.set_meta("written", "by this transaction")
        is_inside.set()
        assert may_end.wait(30)

    writer = threading.Thread(target=lambda: engine.store.transact(work))
    writer.start()
    try:
        assert is_inside.wait(30)
        monkeypatch.setenv("LOCALCONC_HOME", str(alias))
        assert registry.current() is not engine
        with suppress(AcquireConcurrencySlotTimeoutError):  # the store is busy
            acquire("first", timeout_seconds=0)
        other = programs.python(
            "import sqlite3, sys\ntry: sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')\n"
            "except sqlite3.OperationalError as error: print(error)\nelse: print('inside')",
            localconc_home_directory / "localconc.db",
        )
        assert other.hear() == "database is locked"
    finally:
        may_end.set()
        writer.join(30)


# ---- a store that can't be used --------------------------------------------------------------------------------------


def test_leaving_a_block_after_the_home_was_deleted_and_begun_anew_without_its_limit_raises_nothing(
    programs: Cast, localconc_home_directory: Path
) -> None:
    with concurrency("L", limit=1):
        shutil.rmtree(localconc_home_directory)
        programs.python("from localconc.sync import concurrency\nwith concurrency('L'): pass").finish()
        time.sleep(NOTICED_WITHIN_SECONDS)


def test_a_call_that_makes_a_limit_begins_anew_a_home_that_was_deleted_a_moment_ago(
    localconc_home_directory: Path,
) -> None:
    for number in range(10):
        with concurrency(f"limit-{number}", limit=1):
            pass
        shutil.rmtree(localconc_home_directory)
        with concurrency("another", limit=1):  # before this process looks at its files again
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="open files can't be moved there")
def test_a_limit_can_not_be_made_where_the_home_is_out_of_sight_and_the_error_says_so(
    localconc_home_directory: Path,
) -> None:
    ensure_limit("L", 1)
    away = localconc_home_directory.with_name("away")
    os.rename(localconc_home_directory, away)
    time.sleep(NOTICED_WITHIN_SECONDS)
    try:
        with pytest.raises(StoreError, match="No such file"), concurrency("M", limit=1):
            pass
    finally:
        os.rename(away, localconc_home_directory)


@pytest.mark.skipif(sys.platform == "win32", reason="open files can't be moved there")
def test_each_call_says_that_the_home_was_replaced_by_a_file(localconc_home_directory: Path) -> None:
    with concurrency("L", limit=1):
        pass
    shutil.rmtree(localconc_home_directory)
    localconc_home_directory.write_text("no directory")
    time.sleep(NOTICED_WITHIN_SECONDS)
    try:
        for _ in range(5):
            with pytest.raises(StoreError), concurrency("L", limit=1):
                pass
    finally:
        localconc_home_directory.unlink()


def test_calls_that_fail_leave_neither_threads_nor_work_behind(localconc_home_directory: Path) -> None:
    ensure_limit("L", 1)
    with closing(sqlite3.connect(localconc_home_directory / "localconc.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    registry.forget_all()
    before = _thread._count()
    for _ in range(50):
        with pytest.raises(StoreError, match="newer"), concurrency("L"):
            pass
    holdings = registry.current().holdings
    assert holdings.being_released() == set()
    assert not holdings.has_unfinished
    assert _thread._count() <= before + 1


def test_releases_that_the_store_does_not_allow_need_one_thread(localconc_home_directory: Path) -> None:
    ensure_limit("L", 100)
    occupancies = [acquire("L") for _ in range(20)]
    holdings = registry.current().holdings
    before = _thread._count()
    with closing(sqlite3.connect(localconc_home_directory / "localconc.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        occupancies.clear()
        until(lambda: len(holdings.being_released()) == 20, "all are released in the background")
        until(lambda: _thread._count() <= before + 1, "one thread does so")
    until(lambda: not read_holders(), "all are released")
