"""How a waiter learns that a process in front of it has died."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

import pytest

from localconc._engine.core.records import OwnerRow
from localconc._engine.homes import home
from localconc._engine.liveness import owner as owners
from localconc._engine.liveness import watch as watching
from localconc._engine.liveness.owner import Owner
from localconc._engine.liveness.watch import Watch
from tests.kit.owners import another, row_of

pytestmark = pytest.mark.skipif(not watching.IS_SUPPORTED, reason="the kernel tells nothing of other processes")

PATIENCE_SECONDS = 30.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    home.prepare(made)
    return made


def watch_on(directory: Path, *rows: OwnerRow) -> Watch:
    """A watch on owners that have been looked at once, as every newly watched one has to be."""
    watch = Watch(directory)
    watch.add(rows)
    assert watch.take_suspects() == list(rows)
    assert watch.recheck_at is None
    return watch


def wait_for_news(watch: Watch) -> None:
    assert watch.descriptor is not None
    poll = select.poll()
    poll.register(watch.descriptor, select.POLLIN)
    assert poll.poll(PATIENCE_SECONDS * 1000), "no news came"
    assert watch.has_news()


def find_dead(watch: Watch, directory: Path, timeout_seconds: float = PATIENCE_SECONDS) -> list[OwnerRow]:
    """The owners that a waiter finds dead, looking as often as it is asked to."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        dead = [row for row in watch.take_suspects() if not owners.is_alive(directory, row)]
        if dead or watch.recheck_at is None:
            return dead
    raise AssertionError("suspects remained")


def die(owner: Owner) -> None:
    """What the kernel does when the owner's process dies."""
    os.close(owner.descriptor)


@pytest.mark.parametrize("end", ["kill", "exec", "close"])
def test_the_end_of_a_claim_is_noticed_whatever_ended_it(directory: Path, end: str) -> None:
    with another(directory) as process:
        watch = watch_on(directory, process.row)
        assert not watch.has_news()
        if end == "kill":
            process.popen.kill()
        else:
            process.tell(end)
        wait_for_news(watch)
        assert find_dead(watch, directory) == [process.row]
        watch.remove(process.row)
        assert watch.descriptor is None
        watch.forget()


def test_the_death_of_a_process_in_another_container_is_noticed(directory: Path) -> None:
    with another(directory) as process:
        row = process.row._replace(pid=2**22, pid_namespace="pid:[another]")
        watch = watch_on(directory, row)
        process.popen.kill()
        wait_for_news(watch)
        assert find_dead(watch, directory) == [row]
        watch.forget()


def test_many_owners_take_no_more_descriptors_than_one(directory: Path) -> None:
    made = [Owner(directory) for _ in range(20)]
    watch = watch_on(directory, row_of(made[0], id=0))
    before = len(os.listdir("/proc/self/fd"))
    watch.add([row_of(owner, id=number) for number, owner in enumerate(made)])
    assert len(os.listdir("/proc/self/fd")) == before
    for owner in made:
        die(owner)
    assert len(find_dead(watch, directory)) == 20
    watch.forget()


def test_an_owner_that_died_before_it_was_watched_is_a_suspect(directory: Path) -> None:
    with another(directory) as process:
        process.kill()
        watch = Watch(directory)
        watch.add([process.row])
        assert watch.has_news()
        assert find_dead(watch, directory) == [process.row]
        watch.forget()


def test_an_owner_whose_file_is_gone_is_a_suspect_and_unwatched(directory: Path) -> None:
    owner = Owner(directory)
    os.unlink(owner.path)
    watch = Watch(directory)
    watch.add([row_of(owner)])
    assert watch.take_suspects() == [row_of(owner)]
    assert watch.unwatched == [row_of(owner)]
    assert not watch.is_watching(1)
    watch.forget()
    owner.retire()


def test_a_suspect_whose_lock_is_still_held_is_looked_at_again(directory: Path) -> None:
    owner = Owner(directory)
    row = row_of(owner)
    watch = watch_on(directory, row)
    os.close(os.open(owner.path, os.O_WRONLY))  # the same news as of a death, while the lock is held
    wait_for_news(watch)
    looks = [watch.take_suspects()]
    while watch.recheck_at is not None:
        assert watch.recheck_at < time.clock_gettime(time.CLOCK_BOOTTIME) + 0.05
        found = watch.take_suspects()
        looks.extend([found] if found else [])
    assert looks == [[row]] * (1 + len(watching.RECHECK_PAUSES_SECONDS))
    assert watch.is_watching(row.id)
    die(owner)
    wait_for_news(watch)
    assert find_dead(watch, directory) == [row]
    watch.forget()


def test_an_owner_that_puts_its_file_back_is_watched_as_before(directory: Path) -> None:
    owner = Owner(directory)
    row = row_of(owner)
    watch = watch_on(directory, row)
    os.unlink(owner.path)
    owner.ensure_file()
    wait_for_news(watch)
    assert find_dead(watch, directory) == []
    assert watch.is_watching(row.id)
    die(owner)
    wait_for_news(watch)
    assert find_dead(watch, directory) == [row]
    watch.forget()


def test_a_command_is_watched_by_its_process(directory: Path) -> None:
    with another(directory) as process:
        row = process.row._replace(is_command=1)
        watch = watch_on(directory, row)
        process.tell("close")
        assert process.hear() == "closed\n"
        assert not watch.has_news()
        process.popen.kill()
        wait_for_news(watch)
        assert find_dead(watch, directory) == [row]
        watch.remove(row)
        watch.forget()


def test_an_owner_that_becomes_a_command_is_watched_as_that(directory: Path) -> None:
    with another(directory) as process:
        watch = watch_on(directory, process.row)
        command = process.row._replace(is_command=1)
        watch.add([command])
        assert watch.take_suspects() == [command]
        process.tell("close")
        assert process.hear() == "closed\n"
        assert not watch.has_news()
        watch.forget()


def test_adding_an_owner_twice_watches_it_once(directory: Path) -> None:
    owner = Owner(directory)
    watch = watch_on(directory, row_of(owner))
    watch.add([row_of(owner)])
    assert watch.take_suspects() == []
    watch.forget()
    owner.retire()


def test_a_lost_piece_of_news_makes_all_files_suspect(directory: Path) -> None:
    made = [Owner(directory) for _ in range(3)]
    rows = [row_of(owner, id=number) for number, owner in enumerate(made)]
    watch = watch_on(directory, *rows)
    watch._suspect(watching.OVERFLOW, has_ended=False)
    assert watch.take_suspects() == rows
    watch.forget()
    for owner in made:
        owner.retire()


def test_more_owners_than_can_be_watched_are_left_to_the_waiters(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MAX_WATCHED", 2)
    made = [Owner(directory) for _ in range(3)]
    rows = [row_of(owner, id=number) for number, owner in enumerate(made)]
    watch = Watch(directory)
    watch.add(rows)
    assert watch.unwatched == rows[2:]
    watch.remove(rows[0])
    watch.add(rows[1:])
    assert watch.unwatched == []
    watch.forget()
    for owner in made:
        owner.retire()


def refuse() -> None:
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize("is_supported", [True, False])
def test_where_nothing_can_be_watched_all_owners_are_unwatched(
    directory: Path, monkeypatch: pytest.MonkeyPatch, is_supported: bool
) -> None:
    from localconc._engine.liveness.systems import inotify

    monkeypatch.setattr(inotify, "Inotify", refuse)
    owner = Owner(directory)
    watch = Watch(directory, is_supported=is_supported)
    watch.add([row_of(owner)])
    assert watch.descriptor is None
    assert watch.unwatched == [row_of(owner)]
    assert not watch.has_news()
    assert watch.take_suspects() == []
    watch.remove(row_of(owner))
    assert watch.unwatched == []
    watch.forget()
    owner.retire()


def test_a_forked_child_leaves_the_watches_of_its_parent_alone(directory: Path) -> None:
    with another(directory) as process:
        command = process.row._replace(id=2, is_command=1)
        watch = watch_on(directory, process.row, command)
        pid = os.fork()
        if pid == 0:
            watch.forget()
            os._exit(0)
        os.waitpid(pid, 0)
        assert watch.is_watching(1)
        process.popen.kill()
        wait_for_news(watch)
        assert set(find_dead(watch, directory)) <= {process.row, command}
        watch.forget()


def test_descriptors_that_were_closed_under_the_process_are_replaced(directory: Path) -> None:
    with another(directory) as process:
        watch = watch_on(directory, process.row)
        assert watch._epoll is not None
        assert watch._inotify is not None
        numbers = [watch._epoll.fileno(), watch._inotify.descriptor]
        taken_over = os.open(os.devnull, os.O_RDONLY)
        for number in numbers:
            os.dup2(taken_over, number)
        assert watch.has_news() or watch.recheck_at is not None
        assert watch.take_suspects() == [process.row]
        for number in numbers:
            os.fstat(number)  # nobody closed what took their place
        process.popen.kill()
        wait_for_news(watch)
        assert find_dead(watch, directory) == [process.row]
        watch.forget()
        for number in [*numbers, taken_over]:
            os.close(number)


def test_forgetting_closes_everything(directory: Path) -> None:
    owner = Owner(directory)
    before = sorted(os.listdir("/proc/self/fd"))
    watch = watch_on(directory, row_of(owner))
    watch.forget()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert watch.descriptor is None
    watch.add([row_of(owner)])
    assert watch.is_watching(1)
    watch.forget()
    owner.retire()


def test_a_watch_shows_what_it_is(directory: Path) -> None:
    assert repr(Watch(directory)) == "<Watch on 0 of 0 owners, 0 suspects>"


def test_ctypes_is_loaded_only_to_watch() -> None:
    import subprocess

    program = "import sys, localconc._engine.liveness.watch; print('ctypes' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"
