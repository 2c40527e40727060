"""How waiters are told: by other processes, by their own, and where hardly anything works."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localconc._engine.homes import home
from localconc._engine.liveness.owner import Owner
from localconc._engine.waiting.mailboxes import mailbox as mailboxes
from localconc._engine.waiting.mailboxes import notifier as notifiers
from localconc._engine.waiting.mailboxes import pool as mailbox_pool
from localconc._engine.waiting.mailboxes.mailbox import WAKEUP, Mailbox, Wakeup, from_bytes
from localconc._engine.waiting.mailboxes.notifier import Notifier
from localconc._engine.waiting.mailboxes.pool import MailboxPool
from localconc._engine.waiting.timing import MAX_POLLERS
from tests.kit.systems import needs_sockets

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets"), needs_sockets]

PATIENCE_SECONDS = 10.0

#: Numbers of the system calls poll() and ppoll() on Linux.
POLL_NUMBERS = {"x86_64": "7", "aarch64": "73"}

#: Sends a wakeup to each address that it reads.
SENDER = """
import sys
from pathlib import Path
from localconc._engine.waiting.mailboxes.pool import MailboxPool
from localconc._engine.waiting.mailboxes.mailbox import Wakeup
from localconc._engine.waiting.mailboxes.notifier import Notifier
directory = Path(sys.argv[1])
Notifier(directory, MailboxPool(directory)).send([(sys.argv[2], (7, 11, 1.5, 2.5))])
"""


def descriptors_of(mailbox: mailbox_pool.SocketMailbox) -> list[int]:
    return [number for number in (mailbox._descriptor, mailbox._eventfd) if number >= 0]


class Place:
    """One process in a home: its owner, its mailboxes, its notifier."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.owner = Owner(directory)
        self.pool = MailboxPool(directory)
        self.notifier = Notifier(directory, self.pool)

    def take(self) -> Mailbox:
        mailbox = self.pool.take(self.owner)
        assert mailbox.address  # as the row of a waiter has it
        return mailbox

    def files(self) -> list[str]:
        return sorted(name for name in os.listdir(self.directory / "owners") if not name.endswith(".lock"))

    def close(self) -> None:
        self.notifier.close()
        self.pool.close()
        self.owner.retire()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    home.prepare(made)
    return made


@pytest.fixture
def here(directory: Path) -> Iterator[Place]:
    place = Place(directory)
    yield place
    place.close()


@pytest.fixture
def there(directory: Path) -> Iterator[Place]:
    """Another process, as far as mailboxes go."""
    place = Place(directory)
    yield place
    place.close()


def received(mailbox: Mailbox) -> list[Wakeup]:
    """What comes within some time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        mailbox.wait(PATIENCE_SECONDS, None)
        taken = mailbox.take()
        if taken:
            return taken
    raise AssertionError("nothing came")


# ---- wakeups ---------------------------------------------------------------------------------------------------------

moments = st.floats(allow_nan=False, allow_infinity=False)
wakeups = st.tuples(st.integers(0, 2**62), st.integers(0, 2**63 - 1), moments, moments)


@given(wakeups)
def test_a_wakeup_arrives_as_it_was_sent(wakeup: Wakeup) -> None:
    assert from_bytes(WAKEUP.pack(*wakeup)) == wakeup


@pytest.mark.parametrize("datagram", [b"", b"x", b"1 2 3.0 4.0", b"\0" * 31, b"\0" * 33, b"\xff" * 100])
def test_what_somebody_else_made_up_is_no_wakeup(datagram: bytes) -> None:
    assert from_bytes(datagram) is None


# ---- from other processes --------------------------------------------------------------------------------------------


def test_another_process_wakes_a_waiter(here: Place) -> None:
    mailbox = here.take()
    subprocess.run([sys.executable, "-c", SENDER, str(here.directory), mailbox.address], check=True)
    assert received(mailbox) == [(7, 11, 1.5, 2.5)]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can make network namespaces")
def test_a_process_in_another_network_namespace_wakes_a_waiter(here: Place) -> None:
    mailbox = here.take()
    words = ["unshare", "--net", sys.executable, "-c", SENDER, str(here.directory), mailbox.address]
    if subprocess.run(words, check=False).returncode:
        pytest.skip("network namespaces can't be made here")
    assert received(mailbox) == [(7, 11, 1.5, 2.5)]


def test_wakeups_for_several_waiters_share_a_mailbox(here: Place, there: Place) -> None:
    mailbox = here.take()
    sent = [(serial, serial + 1, 0.5, 0.5) for serial in range(1, 6)]
    there.notifier.send([(mailbox.address, wakeup) for wakeup in sent])
    mailbox.drain()
    assert mailbox.take() == sent


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has short names for long paths")
def test_a_home_of_any_length_has_mailboxes(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30) / "home"
    home.prepare(directory)
    here, there = Place(directory), Place(directory)
    mailbox = here.take()
    assert mailbox.is_reachable
    there.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0))])
    assert received(mailbox) == [(7, 0, 0.0, 0.0)]
    here.close()
    there.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, paths are Unicode")
def test_a_home_whose_path_is_not_unicode_has_mailboxes(tmp_path: Path) -> None:
    directory = tmp_path / "caf\udce9"
    home.prepare(directory)
    here, there = Place(directory), Place(directory)
    mailbox = here.take()
    there.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0))])
    assert received(mailbox) == [(7, 0, 0.0, 0.0)]
    here.close()
    there.close()


@pytest.mark.parametrize(
    "address", ["", "x", "../victim", "/tmp/victim", "0" * 24, "0" * 24 + ".", "0" * 24 + ".1/x", 7]
)
def test_a_row_with_a_made_up_address_makes_nobody_write_elsewhere(
    here: Place, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(notifiers, "new_socket", lambda: pytest.fail("it was about to send"))
    here.notifier.send([(address, (7, 0, 0.0, 0.0))])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux opens sockets without following links")
def test_a_link_in_a_shared_home_makes_nobody_write_to_another_socket() -> None:
    with tempfile.TemporaryDirectory() as short:  # in a home with a long path, sockets are opened anyway
        directory = Path(short) / "home"
        home.prepare(directory)
        send_by_a_link(directory, Path(short))


def send_by_a_link(directory: Path, tmp_path: Path) -> None:
    os.chmod(directory, 0o2770)
    here = Place(directory)
    victim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    victim.bind(str(tmp_path / "victim"))
    victim.setblocking(False)
    address = "0" * 24 + ".0"
    os.symlink(tmp_path / "victim", directory / "owners" / address)
    here.notifier.send([(address, (7, 0, 0.0, 0.0))])
    with pytest.raises(BlockingIOError):
        victim.recv(100)
    mailbox = here.take()
    Notifier(directory, MailboxPool(directory)).send([(mailbox.address, (7, 0, 0.0, 0.0))])
    assert received(mailbox) == [(7, 0, 0.0, 0.0)]
    here.close()
    victim.close()


@pytest.mark.parametrize(("mode", "socket_mode"), [(0o700, 0o600), (0o2770, 0o660)])
def test_a_mailbox_is_open_to_those_who_may_use_the_home(directory: Path, mode: int, socket_mode: int) -> None:
    os.chmod(directory, mode)
    here = Place(directory)
    mailbox = here.take()
    assert os.lstat(directory / "owners" / mailbox.address).st_mode & 0o777 == socket_mode
    here.close()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="root, and a way to change what it has opened")
def test_a_mailbox_that_root_opens_in_a_home_belongs_to_the_owner_of_the_home(directory: Path) -> None:
    os.chown(directory, 65534, 65534)
    here = Place(directory)
    found = os.lstat(directory / "owners" / here.take().address)
    assert (found.st_uid, found.st_gid) == (65534, 65534)
    here.close()


# ---- within a process ------------------------------------------------------------------------------------------------


def test_a_thread_of_the_same_process_is_told_without_a_datagram(here: Place) -> None:
    mailbox = here.take()
    told: list[list[Wakeup]] = []
    thread = threading.Thread(target=lambda: told.append(received(mailbox)))
    thread.start()
    here.notifier.send([(mailbox.address, (7, 1, 0.5, 0.5))])
    thread.join()
    assert told == [[(7, 1, 0.5, 0.5)]]
    assert here.notifier._socket is None


def test_an_event_loop_is_told_by_a_call(here: Place) -> None:
    mailbox = here.take()
    seen: list[list[Wakeup]] = []
    mailbox.on_delivery = lambda: seen.append(mailbox.take())
    here.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0)), (mailbox.address, (8, 0, 0.0, 0.0))])
    assert seen == [[(7, 0, 0.0, 0.0)], [(8, 0, 0.0, 0.0)]]


@pytest.mark.parametrize("lacks", ["eventfd", "sockets"])
def test_threads_of_a_process_are_told_where_hardly_anything_works(
    here: Place, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(24, "Too many open files")

    if lacks == "eventfd":
        monkeypatch.setattr(os, "eventfd", refuse, raising=False)
    else:
        monkeypatch.setattr(mailboxes, "new_socket", refuse)
    monkeypatch.setattr(mailboxes, "SLOW_POLL_SECONDS", 2 * PATIENCE_SECONDS)
    mailbox = here.take()
    assert mailbox.is_reachable is (lacks == "eventfd")
    begun = time.monotonic()
    timer = threading.Timer(0.05, lambda: here.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0))]))
    timer.start()
    assert received(mailbox) == [(7, 0, 0.0, 0.0)]
    assert time.monotonic() - begun < PATIENCE_SECONDS, "it was told, it did not poll"
    timer.join()
    here.pool.put(mailbox)


def test_one_wakeup_ends_one_wait(here: Place) -> None:
    mailbox = here.take()
    here.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0))])
    assert received(mailbox) == [(7, 0, 0.0, 0.0)]
    begun = time.monotonic()
    mailbox.wait(0.05, None)
    assert time.monotonic() - begun >= 0.04


# ---- sleeping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.0005, 0.003, 0.02, 0.15])
def test_a_wait_ends_at_its_moment_and_not_before(here: Place, seconds: float) -> None:
    begun = time.monotonic()
    here.take().wait(seconds, None)
    assert time.monotonic() - begun >= seconds


def test_a_wait_ends_when_the_watched_descriptor_becomes_readable(here: Place) -> None:
    mailbox = here.take()
    readable, writable = os.pipe()
    begun = time.monotonic()
    timer = threading.Timer(0.05, lambda: os.write(writable, b"x"))
    timer.start()
    mailbox.wait(PATIENCE_SECONDS, readable)
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    mailbox.wait(0.01, None)  # it is watched no longer
    timer.join()
    os.close(readable)
    os.close(writable)


def test_descriptors_beyond_those_of_select_are_no_obstacle(here: Place) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("there can't be as many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    opened = []
    try:
        while not opened or opened[-1] < 1100:
            opened.append(os.open(os.devnull, os.O_RDONLY))
        mailbox = here.take()
        here.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0))])
        assert received(mailbox) == [(7, 0, 0.0, 0.0)]
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- descriptors that somebody closed --------------------------------------------------------------------------------


def test_what_has_taken_the_place_of_a_mailbox_is_neither_read_nor_written(here: Place, there: Place) -> None:
    mailbox = here.take()
    assert isinstance(mailbox, mailbox_pool.SocketMailbox)
    numbers = descriptors_of(mailbox)
    ours, theirs = socket.socketpair()
    theirs.send(b"not for a mailbox")
    for number in numbers:
        os.dup2(ours.fileno(), number)
    here.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0))])
    mailbox.wait(0.05, None)
    assert not mailbox.is_reachable
    assert mailbox.take() == [(7, 0, 0.0, 0.0)]
    assert ours.recv(100) == b"not for a mailbox"
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    here.pool.put(mailbox)
    for number in numbers:
        os.close(number)  # nobody closed what was not a mailbox's any more
    ours.close()
    theirs.close()


def test_what_has_taken_the_place_of_the_senders_socket_is_not_written(here: Place, there: Place) -> None:
    mailbox = there.take()
    here.notifier.send([(mailbox.address, (1, 0, 0.0, 0.0))])
    assert here.notifier._socket is not None
    number = here.notifier._socket.fileno()
    ours, theirs = socket.socketpair()
    os.dup2(ours.fileno(), number)
    here.notifier.send([(mailbox.address, (2, 0, 0.0, 0.0))])
    mailbox.drain()
    assert mailbox.take() == [(1, 0, 0.0, 0.0), (2, 0, 0.0, 0.0)]
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    os.close(number)
    ours.close()
    theirs.close()


def test_a_thread_whose_descriptors_are_closed_while_it_sleeps_is_told_all_the_same(here: Place) -> None:
    mailbox = here.take()
    assert isinstance(mailbox, mailbox_pool.SocketMailbox)
    told: list[list[Wakeup]] = []
    thread = threading.Thread(target=lambda: told.append(received(mailbox)))
    thread.start()
    wait_until_asleep(thread)
    os.close(mailbox._descriptor)
    os.close(mailbox._eventfd)
    here.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0))])
    thread.join(PATIENCE_SECONDS / 2)
    assert told == [[(7, 0, 0.0, 0.0)]]


def wait_until_asleep(thread: threading.Thread) -> None:
    """Wait until a thread is inside poll()."""
    if os.uname().machine not in POLL_NUMBERS or sys.platform != "linux":
        pytest.skip("nobody tells in which system call a thread is")
    path = Path(f"/proc/self/task/{thread.native_id}/syscall")
    while path.read_text(encoding="ascii").split()[0] != POLL_NUMBERS[os.uname().machine]:
        time.sleep(0.001)


def test_a_mailbox_that_was_closed_under_its_waiter_does_not_spin(here: Place) -> None:
    mailbox = here.take()
    assert isinstance(mailbox, mailbox_pool.SocketMailbox)
    for number in descriptors_of(mailbox):
        os.close(number)
    mailbox.wait(0.1, None)
    begun = time.monotonic()
    mailbox.wait(0.1, None)
    assert time.monotonic() - begun >= 0.09


# ---- the pool --------------------------------------------------------------------------------------------------------


def test_a_mailbox_takes_a_file_and_descriptors_only_once_somebody_is_to_know_its_address(here: Place) -> None:
    descriptors = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    mailbox = here.pool.take(here.owner)
    here.pool.put(mailbox)
    assert here.files() == []
    assert descriptors == (os.listdir("/proc/self/fd") if sys.platform == "linux" else [])
    assert here.pool.take(here.owner) is mailbox
    assert [mailbox.address] == here.files()


def test_no_more_than_sixteen_mailboxes_stay_open(here: Place) -> None:
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    taken = [here.take() for _ in range(40)]
    assert len({mailbox.address for mailbox in taken}) == 40
    for mailbox in taken:
        here.pool.put(mailbox)
    assert len(here.files()) == mailbox_pool.MAX_FREE
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) <= before + 2 * mailbox_pool.MAX_FREE


def test_those_who_poll_are_woken_once_each_time_their_number_has_halved(here: Place) -> None:
    """A few are not, because only many threads poll less often than one; nor are those who have just begun to wait."""
    taken = [here.take() for _ in range(4 * MAX_POLLERS)]
    woken: list[str] = []
    for mailbox in taken:
        mailbox.wake = lambda name=mailbox.name: woken.append(name)  # type: ignore[method-assign]
        here.pool.note_poller(mailbox)
    for mailbox in [here.take() for _ in range(4 * MAX_POLLERS)]:
        mailbox.wake = lambda: pytest.fail("it does not poll")  # type: ignore[method-assign]
        here.pool.put(mailbox)
    assert not woken

    for left in reversed(range(len(taken))):
        here.pool.put(taken[left])
        assert len(woken) == sum(count for count in (2 * MAX_POLLERS, MAX_POLLERS) if left <= count)
        assert here.pool.pollers == left


def test_a_waiter_that_is_woken_gets_no_wakeup(here: Place) -> None:
    mailbox = here.take()
    assert mailbox.address

    mailbox.wake()

    begun = time.monotonic()
    mailbox.wait(PATIENCE_SECONDS, None)
    assert time.monotonic() - begun < PATIENCE_SECONDS
    assert mailbox.take() == []


def test_a_mailbox_is_used_again_without_what_came_late(here: Place, there: Place) -> None:
    mailbox = here.take()
    address = mailbox.address
    here.pool.put(mailbox)
    there.notifier.send([(address, (7, 0, 0.0, 0.0))])
    again = here.take()
    assert again.address == address
    assert again.take() == []


def test_a_mailbox_that_is_not_in_use_is_not_found(here: Place) -> None:
    mailbox = here.take()
    assert here.pool.find(mailbox.address) is mailbox
    here.pool.put(mailbox)
    assert here.pool.find(mailbox.address) is None


def test_threads_leave_the_program_some_descriptors(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_pool, "_max_sockets", lambda: 3)
    taken = [here.take() for _ in range(5)]
    assert [mailbox.is_reachable for mailbox in taken] == [True, True, True, False, False]
    for mailbox in taken:
        here.pool.put(mailbox)
    assert len(here.files()) == 3


def test_a_new_owner_has_mailboxes_of_its_own(here: Place) -> None:
    old = here.take()
    here.pool.put(here.take())
    first, here.owner = here.owner, Owner(here.directory)
    first.retire()
    assert here.take().address.startswith(here.owner.key)
    here.pool.put(old)
    assert [name for name in here.files() if name.startswith(first.key)] == []


def test_a_closed_pool_keeps_nothing(here: Place) -> None:
    mailbox = here.take()
    here.pool.put(here.take())
    here.pool.close()
    assert here.files() == [mailbox.address]
    here.pool.put(mailbox)
    assert here.files() == []


def test_a_file_that_was_left_behind_is_replaced(here: Place) -> None:
    (here.directory / "owners" / f"{here.owner.key}.0").touch()
    assert here.take().is_reachable


def test_a_forked_child_leaves_the_mailboxes_of_its_parent_alone(here: Place, there: Place) -> None:
    mailbox = here.take()
    pid = os.fork()
    if pid == 0:
        here.pool.close_in_child()
        os._exit(0)
    os.waitpid(pid, 0)
    there.notifier.send([(mailbox.address, (7, 0, 0.0, 0.0))])
    assert received(mailbox) == [(7, 0, 0.0, 0.0)]
