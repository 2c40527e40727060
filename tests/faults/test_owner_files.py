"""A cleaner of /tmp may remove the files by which processes see that another one lives."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from localconc import ensure_limit, read_holders, read_waiters
from tests.faults.programs import Cast, Puppet, until
from tests.faults.test_namespaces import in_another_pid_namespace
from tests.kit.systems import needs_sockets

#: A process looks ten times within this whether its files are still in their places.
NOTICED_WITHIN_SECONDS = 0.1


def _remove_owners_files(home: Path) -> None:
    for file in (home / "owners").iterdir():
        file.unlink()


def _locks(home: Path) -> list[Path]:
    return list((home / "owners").glob("*.lock"))


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be removed there")
def test_a_process_whose_file_was_removed_makes_it_again_at_its_next_use(
    programs: Cast, localconc_home_directory: Path
) -> None:
    holder = programs.puppet()
    holder.must_enter("L", limit=1)
    (lock,) = _locks(localconc_home_directory)
    lock.unlink()
    time.sleep(NOTICED_WITHIN_SECONDS)

    holder.must_enter("M", limit=1)

    assert _locks(localconc_home_directory) == [lock]
    assert [(each.name, each.pid) for each in read_holders()] == [("L", holder.pid), ("M", holder.pid)]


def test_the_death_of_a_process_in_another_pid_namespace_is_noticed_though_its_file_was_removed_before(
    programs: Cast, localconc_home_directory: Path
) -> None:
    container = in_another_pid_namespace()
    ensure_limit("L", 1)
    inside, waiter = programs.puppet(prefix=container), programs.puppet()
    inside.must_enter("L")
    _remove_owners_files(localconc_home_directory)
    time.sleep(NOTICED_WITHIN_SECONDS)
    inside.must_enter("M", limit=1)
    assert not waiter.enters("L")

    inside.kill()

    assert waiter.enters("L", timeout_seconds=5)


def test_the_doctor_names_a_holder_of_which_nothing_tells_whether_it_lives_and_repair_releases_its_slot(
    programs: Cast, localconc_home_directory: Path
) -> None:
    container = in_another_pid_namespace()
    ensure_limit("L", 1)
    inside, newcomer = programs.puppet(prefix=container), programs.puppet()
    inside.must_enter("L")
    _remove_owners_files(localconc_home_directory)
    inside.kill()
    assert not newcomer.enters("L")

    status, report = programs.command(sys.executable, "-m", "localconc", "doctor").end(30)
    assert status == 1
    assert f"files of processes in other containers were removed: pid {inside.own_pid}" in report
    status, report = programs.command(sys.executable, "-m", "localconc", "doctor", "--repair").end(30)

    assert status == 0, report
    assert newcomer.enters("L", timeout_seconds=2)


def test_a_holder_that_lives_and_was_taken_for_dead_notes_its_slot_again(
    programs: Cast, localconc_home_directory: Path
) -> None:
    container = in_another_pid_namespace()
    ensure_limit("L", 1)
    inside = programs.puppet(prefix=container)
    inside.must_enter("L")
    _remove_owners_files(localconc_home_directory)
    programs.command(sys.executable, "-m", "localconc", "doctor", "--repair").end(30)
    assert read_holders("L") == []

    inside.must_enter("M", limit=1)

    assert [(each.name, each.pid) for each in read_holders()] == [("L", inside.own_pid), ("M", inside.own_pid)]


def _wakeups_of(waiter: Puppet, holder: Puppet) -> int:
    """Let it wait once for what another process releases; return how many wakeups it received."""
    holder.must_enter("L")
    waiter.begins_to_enter("L", timeout_seconds=60)
    until(lambda: len(read_waiters("L")) == 1, "it waits")
    holder.leave("L")
    assert waiter.outcome("L") == "done"
    waiter.leave("L")
    return int(waiter.evaluate("received[0]"))


_COUNTS_WAKEUPS = """
from localconc._engine.waiting.mailboxes import mailbox
received = [0]
original = mailbox.from_bytes
def from_bytes(datagram):
    received[0] += 1
    return original(datagram)
mailbox.from_bytes = from_bytes
"""


@needs_sockets
def test_the_next_wait_has_a_mailbox_again_after_its_file_was_removed(
    programs: Cast, localconc_home_directory: Path
) -> None:
    ensure_limit("L", 1)
    holder, waiter = programs.puppet(), programs.puppet()
    waiter.run(_COUNTS_WAKEUPS)
    assert _wakeups_of(waiter, holder) == 1

    _remove_owners_files(localconc_home_directory)
    time.sleep(NOTICED_WITHIN_SECONDS)

    assert _wakeups_of(waiter, holder) == 2, "it had to poll"


def test_a_waiter_that_polls_makes_its_file_again(programs: Cast, localconc_home_directory: Path) -> None:
    container = in_another_pid_namespace()
    ensure_limit("L", 1)
    holder, waiter, next_waiter = programs.puppet(), programs.puppet(prefix=container), programs.puppet()
    holder.must_enter("L")
    waiter.begins_to_enter("L", timeout_seconds=60)
    until(lambda: len(read_waiters("L")) == 1, "it waits")
    (lock,) = [
        each
        for each in _locks(localconc_home_directory)
        if f" {waiter.own_pid}\n" in each.read_bytes().decode("latin-1")
    ]
    lock.unlink()
    until(lock.exists, "the file is there again", 15)

    next_waiter.begins_to_enter("L", timeout_seconds=60)
    until(lambda: len(read_waiters("L")) == 2, "the next one waits")
    waiter.kill()
    holder.leave("L")

    assert next_waiter.outcome("L", 10) == "done"
