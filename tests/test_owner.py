"""Which processes live, as the locked files of their owners tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from localconc._engine.core.records import OwnerRow
from localconc._engine.homes import home
from localconc._engine.liveness import owner as owners
from localconc._engine.liveness import processes
from localconc._engine.liveness.owner import Owner
from tests.kit.owners import another, row_of

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no shared locks of this kind")
linux = pytest.mark.skipif(sys.platform != "linux", reason="what only Linux tells")
as_root = pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    home.prepare(made)
    return made


# ---- life and death --------------------------------------------------------------------------------------------------


def test_a_process_is_alive_until_it_dies(directory: Path) -> None:
    with another(directory) as process:
        assert owners.is_alive(directory, process.row)
        process.kill()
        assert not owners.is_alive(directory, process.row)


@linux
def test_a_process_that_became_another_program_is_alive_no_more(directory: Path) -> None:
    with another(directory) as process:
        process.tell("exec")
        assert process.hear() == "became\n"
        assert not owners.is_alive(directory, process.row)


def test_a_process_in_another_container_is_judged_by_its_lock_alone(directory: Path) -> None:
    with another(directory) as process:
        row = process.row._replace(pid=2**22, pid_namespace="pid:[another]")
        assert owners.is_alive(directory, row)
        process.kill()
        assert not owners.is_alive(directory, row)


def test_without_its_file_the_process_table_decides(directory: Path) -> None:
    with another(directory) as process:
        os.unlink(owners.path_of(directory, process.row.key))
        assert owners.is_alive(directory, process.row)
        process.kill()
        assert not owners.is_alive(directory, process.row)


def test_without_its_file_a_process_in_another_container_counts_as_alive(directory: Path) -> None:
    with another(directory) as process:
        os.unlink(owners.path_of(directory, process.row.key))
        process.kill()
        assert owners.is_alive(directory, process.row._replace(pid_namespace="pid:[another]"))


@linux
def test_a_pid_that_has_passed_on_to_another_process_proves_nothing(directory: Path) -> None:
    owner = Owner(directory)
    os.unlink(owner.path)
    assert owners.is_alive(directory, row_of(owner))
    assert not owners.is_alive(directory, row_of(owner, started="1"))
    owner.retire()


@as_root
def test_where_a_lock_may_not_be_looked_at_the_process_table_decides(directory: Path) -> None:
    os.chmod(directory, 0o755)
    os.chmod(directory / "owners", 0o755)
    os.chmod(directory.parent, 0o755)
    with another(directory) as process:
        assert as_nobody(directory, process.row) == "alive"
        process.kill()
        assert as_nobody(directory, process.row) == "dead"
        assert as_nobody(directory, process.row._replace(pid_namespace="pid:[another]")) == "alive"


def as_nobody(directory: Path, row: OwnerRow) -> str:
    """Whether a user without rights takes a process for alive, looking from within the directory of the home."""
    pipe, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.chdir(directory.parent)  # which that user could not reach
        os.setuid(65534)
        alive = owners.is_alive(Path(directory.name), row)
        with suppress(PermissionError):
            os.close(os.open(owners.path_of(Path(directory.name), row.key), os.O_RDONLY))
            alive = False  # nothing was tested
        os.write(theirs, b"alive" if alive else b"dead")
        os._exit(0)
    os.close(theirs)
    os.waitpid(pid, 0)
    said = os.read(pipe, 10).decode()
    os.close(pipe)
    return said


@posix
def test_two_who_look_at_a_dead_owner_at_once_both_see_that_it_is_dead(directory: Path) -> None:
    import fcntl

    with another(directory) as process:
        process.kill()
        with open(owners.path_of(directory, process.row.key), "rb") as looking:
            fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as the other one does at this moment
            assert not owners.is_alive(directory, process.row)


def test_one_who_looks_for_orphans_never_keeps_an_owner_from_being_made(directory: Path) -> None:
    done = threading.Event()
    seen: list[Path] = []

    def look() -> None:
        while not done.is_set():
            seen.extend(owners.orphaned_files(directory, set()))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        Owner(directory).retire()
    done.set()
    for thread in threads:
        thread.join()


def test_a_row_with_a_path_for_a_key_leads_to_no_other_file(directory: Path) -> None:
    victim = directory / "victim.lock"
    victim.touch()
    row = OwnerRow(1, "../victim", 2**22, "pid:[another]", "", "")
    owners.remove_file(directory, row)
    assert owners.is_alive(directory, row)
    assert victim.exists()


@pytest.mark.parametrize("pid", [0, -1, 2**40, "x", None, 1.5])
def test_a_row_with_an_impossible_pid_is_nobody(pid: Any) -> None:
    assert processes.has_exited(pid)


# ---- commands --------------------------------------------------------------------------------------------------------


@linux
def test_a_command_lives_as_long_as_its_process_whatever_it_does_with_its_lock(directory: Path) -> None:
    with another(directory) as process:
        command = process.row._replace(is_command=1)
        process.tell("close")
        assert process.hear() == "closed\n"
        assert not owners.is_alive(directory, process.row)
        assert owners.is_alive(directory, command)
        process.kill()
        assert not owners.is_alive(directory, command)


@linux
def test_a_process_that_nobody_has_collected_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert processes.has_exited(process.pid)


@linux
def test_a_process_of_another_user_has_not_ended() -> None:
    assert not processes.has_exited(1)


@linux
def test_without_pidfds_the_end_of_a_process_is_seen_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert not processes.has_exited(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert processes.has_exited(process.pid)
    assert processes.has_exited(process.pid)


@linux
def test_a_stopped_process_is_told_from_a_running_one(directory: Path) -> None:
    with another(directory) as process:
        assert processes.is_stopped(process.row.pid) is False
        os.kill(process.row.pid, signal.SIGSTOP)
        os.waitpid(process.row.pid, os.WUNTRACED)
        assert processes.is_stopped(process.row.pid) is True
        process.kill()
        assert processes.is_stopped(process.row.pid) is None


@linux
def test_the_command_of_a_process_is_printable() -> None:
    program = "from localconc._engine.liveness.processes import command; print(ascii(command()))"
    said = subprocess.run(
        [sys.executable, "-c", program, b"caf\xe9"], capture_output=True, text=True, check=True
    ).stdout
    assert said.endswith(r"caf\ufffd'" + "\n")


# ---- the file --------------------------------------------------------------------------------------------------------


def test_the_living_are_found_without_a_database(directory: Path) -> None:
    with another(directory) as process:
        owner = Owner(directory)
        assert sorted(owners.living(directory, "").values()) == sorted([os.getpid(), process.row.pid])
        assert sorted(owners.living(directory, owner.key).values()) == [process.row.pid]
        process.kill()
        owner.retire()
        assert sorted(owners.living(directory, "").values()) == []


def test_a_home_without_owners_has_no_living(tmp_path: Path) -> None:
    assert sorted(owners.living(tmp_path, "").values()) == []
    assert owners.orphaned_files(tmp_path, set()) == []


def test_files_of_a_process_that_died_unregistered_are_orphans(directory: Path) -> None:
    with another(directory) as process:
        path = owners.path_of(directory, process.row.key)
        mailbox = path.with_suffix(".0")
        mailbox.touch()
        assert owners.orphaned_files(directory, set()) == []
        process.kill()
        assert owners.orphaned_files(directory, {process.row.key}) == []
        assert owners.orphaned_files(directory, set()) == sorted([path, mailbox])


def test_a_file_that_was_never_locked_is_an_orphan_once_it_is_old(directory: Path) -> None:
    path = owners.path_of(directory, "0" * 24).with_suffix(".new")
    path.touch()
    assert owners.orphaned_files(directory, set()) == []
    os.utime(path, (0, 0))
    assert owners.orphaned_files(directory, set()) == [path]


def test_a_file_that_somebody_deleted_is_put_back(directory: Path) -> None:
    owner = Owner(directory)
    assert not owner.ensure_file()
    os.unlink(owner.path)
    assert owner.ensure_file()
    assert sorted(owners.living(directory, "").values()) == [os.getpid()]
    owner.retire()
    assert os.listdir(directory / "owners") == []


def test_a_copy_of_the_file_that_somebody_put_in_its_place_is_replaced(directory: Path) -> None:
    owner = Owner(directory)
    content = owner.path.read_bytes()
    os.unlink(owner.path)
    owner.path.write_bytes(content)
    assert owners.living(directory, "") == {}, "the copy carries no lock"
    assert owners.is_alive(directory, row_of(owner)), "the process table knows better"
    if processes.started(os.getpid()):  # where the system tells it
        assert not owners.is_alive(directory, row_of(owner, started="another"))
    assert owner.ensure_file()
    assert owners.is_alive(directory, row_of(owner))
    owner.retire()


def test_a_descriptor_that_was_closed_and_taken_over_is_noticed_and_left_alone(directory: Path) -> None:
    owner = Owner(directory)
    assert owner.holds_its_descriptor()
    number = owner.descriptor
    os.close(number)
    assert not owner.holds_its_descriptor()
    other = os.open(os.devnull, os.O_RDONLY)
    os.dup2(other, number)
    assert not owner.holds_its_descriptor()
    assert owner.ensure_file()
    assert owner.holds_its_descriptor()
    os.fstat(number)  # still open
    owner.retire()
    for descriptor in {number, other}:
        os.close(descriptor)


@linux
def test_a_forked_child_does_not_keep_the_claim_of_its_parent_alive(directory: Path) -> None:
    owner = Owner(directory)
    said, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        owner.close_in_child()
        os.write(theirs, b"closed")
        os.read(said, 0)
        signal.pause()
    assert os.read(said, 10) == b"closed"
    os.close(owner.descriptor)  # as the parent's death would
    assert not owners.is_alive(directory, row_of(owner)._replace(pid_namespace="pid:[another]"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(said)
    os.close(theirs)


@linux
def test_an_owner_never_takes_the_place_of_a_standard_stream(directory: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from localconc._engine.liveness.owner import Owner
os.close(0); os.close(1)
print(Owner(Path(sys.argv[1])).descriptor, file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=False)
    assert int(ran.stderr.split()[0]) >= 3


# ---- mailboxes and acknowledged grants -------------------------------------------------------------------------------


def test_the_files_of_mailboxes_go_with_their_owner(directory: Path) -> None:
    owner = Owner(directory)
    for _ in range(3):
        (directory / "owners" / owner.add_mailbox()).touch()
    owner.retire()
    assert os.listdir(directory / "owners") == []


def test_whoever_reaps_a_dead_owner_removes_its_mailboxes(directory: Path) -> None:
    owner = Owner(directory)
    for _ in range(3):
        (directory / "owners" / owner.add_mailbox()).touch()
    owner.close_in_child()
    owners.remove_file(directory, row_of(owner))
    assert os.listdir(directory / "owners") == []


def test_names_of_mailboxes_are_used_again(directory: Path) -> None:
    owner = Owner(directory)
    first, second = owner.add_mailbox(), owner.add_mailbox()
    assert first != second
    owner.remove_mailbox(first)
    assert owner.add_mailbox() == first
    owner.retire()


def test_others_see_which_grants_were_picked_up(directory: Path) -> None:
    owner = Owner(directory)
    assert not owners.acknowledged(directory, owner.key, 7)
    assert owner.acknowledge(7)
    assert owners.acknowledged(directory, owner.key, 7)
    assert not owners.acknowledged(directory, owner.key, 8)
    owner.retire()


def test_a_grant_stays_acknowledged_however_many_follow(directory: Path) -> None:
    owner = Owner(directory)
    owner.acknowledge(1)
    for serial in range(2, 3 * owners.BOARD_WORDS):
        owner.acknowledge(serial)
    assert owners.acknowledged(directory, owner.key, 1)
    owner.retire()


def test_acknowledged_grants_outlive_the_file(directory: Path) -> None:
    owner = Owner(directory)
    owner.acknowledge(7)
    os.unlink(owner.path)
    owner.ensure_file()
    assert owners.acknowledged(directory, owner.key, 7)
    assert not owners.acknowledged(directory, owner.key, 8)
    owner.retire()


def test_a_grant_counts_as_picked_up_if_nobody_can_tell(directory: Path) -> None:
    owner = Owner(directory)
    os.close(owner.descriptor)
    owner.ensure_file()
    assert owners.acknowledged(directory, owner.key, 7), "the old board is lost"
    owner.retire()
    assert owners.acknowledged(directory, owner.key, 7), "there is no board"


@pytest.mark.parametrize(("system", "is_own"), [("linux", False), ("darwin", True), ("win32", True)])
def test_only_where_there_are_pid_namespaces_an_unknown_one_is_another(
    system: str, is_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "pid_namespace", lambda: "")
    monkeypatch.setattr(sys, "platform", system)
    assert processes.is_own_table("") == is_own
    assert not processes.is_own_table("pid:[1]")
