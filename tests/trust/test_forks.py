"""fork, spawn, forkserver, threads and pools: a child never gives back, keeps alive or uses what is its parent's."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from localconc import create_limit, read_holders
from localconc._engine import registry
from localconc._engine.core.clock import monotonic
from localconc._engine.store.files import checkpoints
from localconc._engine.store.store import Transaction
from localconc.errors import AcquireConcurrencySlotTimeoutError
from localconc.sync import concurrency

from .inspection import PATIENCE_SECONDS, assert_sound, held, wait_until
from .peers import Peer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


@contextmanager
def forked(body: Callable[[], object]) -> Iterator[int]:
    """A child that runs a function and ends without any cleaning up; it is made sure that it ended well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    try:
        yield pid
    finally:
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed"


def is_free(name: str) -> bool:
    try:
        with concurrency(name, timeout_seconds=0):
            return True
    except AcquireConcurrencySlotTimeoutError:
        return False


def test_a_child_that_ends_gives_back_nothing_of_its_parent(home_directory: Path) -> None:
    create_limit("gate", 1)
    with concurrency("gate") as occupancy:

        def body() -> None:
            assert not is_free("gate")
            occupancy.release()
            gc.collect()

        with forked(body):
            pass
        assert held(home_directory) == 1
    assert held(home_directory) == 0
    assert_sound(home_directory)


def test_a_child_that_leaves_its_parents_block_gives_back_nothing(home_directory: Path) -> None:
    create_limit("gate", 1)
    block = concurrency("gate")
    block.__enter__()
    with forked(lambda: block.__exit__(None, None, None)):
        pass
    assert held(home_directory) == 1
    block.__exit__(None, None, None)
    assert held(home_directory) == 0


def test_a_child_takes_slots_of_its_own_that_its_death_gives_back(home_directory: Path) -> None:
    create_limit("gate", 2)
    with concurrency("gate"):

        def body() -> None:
            block = concurrency("gate")
            block.__enter__()
            assert held(home_directory) == 2
            assert not is_free("gate")

        with forked(body):
            pass
        wait_until(lambda: is_free("gate"), "the child's slot comes back")
        assert held(home_directory) == 1


def test_a_child_of_a_child_is_its_own_owner(home_directory: Path) -> None:
    create_limit("gate", 3)

    def grandchild() -> None:
        with concurrency("gate", timeout_seconds=5):
            assert len({holder.pid for holder in read_holders("gate")}) == 3

    def child() -> None:
        with concurrency("gate", timeout_seconds=5), forked(grandchild):
            pass

    with concurrency("gate"), forked(child):
        pass
    assert held(home_directory) == 0
    assert_sound(home_directory)


def test_a_child_that_lives_on_does_not_keep_its_dead_parents_slots(home_directory: Path) -> None:
    create_limit("gate", 1)
    reading, writing = os.pipe()
    ready, told = os.pipe()
    parent = os.fork()
    if parent == 0:  # holds, starts a child that lives on, and is killed
        os.close(writing)
        block = concurrency("gate")
        block.__enter__()
        if os.fork() == 0:
            os.write(told, b"1")
            os.read(reading, 1)  # until the test ends
            os._exit(0)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        assert os.read(ready, 1) == b"1"
        assert held(home_directory) == 1
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        with concurrency("gate", timeout_seconds=PATIENCE_SECONDS) as occupancy:
            assert occupancy.waited_seconds < 5
    finally:
        for descriptor in (writing, ready, told):
            os.close(descriptor)


def test_a_fork_from_a_thread_works(home_directory: Path) -> None:
    create_limit("gate", 2)

    def fork_and_use() -> None:
        with concurrency("gate", timeout_seconds=5), forked(lambda: is_free("other") or os._exit(3)):
            pass

    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(fork_and_use) for _ in range(6)]:
            future.result(PATIENCE_SECONDS)
    assert held(home_directory) == 0
    assert_sound(home_directory)


def test_a_handler_that_forks_inside_a_transaction_lets_no_other_process_write_meanwhile(home_directory: Path) -> None:
    """And the child, which must not take the parent's locks for its own, gets in after the parent's commit."""
    create_limit("gate", 1)
    engine = registry.current()
    reading, writing = os.pipe()
    children: list[int] = []

    def is_locked() -> bool:
        code = (
            "import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
            "try: connection.execute('BEGIN IMMEDIATE')\n"
            "except sqlite3.OperationalError as error: sys.exit('locked' not in str(error))\nsys.exit(2)"
        )
        return subprocess.call([sys.executable, "-c", code, str(engine.store.database.path)], timeout=60) == 0

    def work(txn: Transaction) -> bool:
        txn.ledger.set_meta("written by", "the parent")
        children.append(os.fork())
        if children == [0]:
            os.read(reading, 1)
            os._exit(0 if is_free("gate") else 3)
        return is_locked()

    assert engine.store.transact(work)
    os.write(writing, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert engine.store.read(lambda ledger: ledger.meta("written by")) == "the parent"
    assert is_free("gate")
    for descriptor in (reading, writing):
        os.close(descriptor)
    assert_sound(home_directory)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has locks that keep SQLite from removing such a log")
def test_a_log_that_is_removed_after_a_handler_has_forked_inside_a_transaction_takes_no_slot_along(
    home_directory: Path,
) -> None:
    create_limit("gate", 1)
    create_limit("other", 1)
    database = registry.current().store.database
    database.maintain(checkpoints.checkpoint)
    with concurrency("gate"):

        def work(_: Transaction) -> None:
            with forked(lambda: None):
                pass

        registry.current().store.transact(work)
        for suffix in ("-wal", "-shm"):
            database.path.with_name(f"{database.path.name}{suffix}").unlink()
        wait_until(lambda: monotonic() >= database.verify_after, "it looks at its files")
        assert is_free("other")  # this process uses the store again
        assert held(home_directory, "gate") == 1


def test_an_engine_that_is_closed_after_a_fork_leaves_no_file_behind(home_directory: Path) -> None:
    create_limit("gate", 1)
    with forked(lambda: None):
        pass
    registry.forget_all()
    assert list((home_directory / "owners").iterdir()) == []
    assert is_free("gate")


def test_a_handler_that_forks_while_the_store_is_opened_leaves_it_usable(home_directory: Path) -> None:
    create_limit("gate", 1)
    registry.forget_all()
    engine = registry.current()
    join = engine.membership.join

    def join_and_fork(*arguments: Any) -> bool:
        engine.membership.join = join  # type: ignore[method-assign]
        with forked(lambda: None):
            return join(*arguments)

    engine.membership.join = join_and_fork  # type: ignore[method-assign]
    with concurrency("gate", timeout_seconds=10):
        assert held(home_directory) == 1
    assert held(home_directory) == 0
    assert_sound(home_directory)


def use(count: int) -> None:
    for _ in range(count):
        with concurrency("gate", timeout_seconds=10):
            pass


def fork_while_others_use_the_store(home: Path, forks: int) -> None:
    """Fork again and again while threads are inside transactions."""
    create_limit("gate", 2)
    done = threading.Event()
    failures: list[BaseException] = []

    def busy() -> None:
        try:
            while not done.is_set():
                use(1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(forks):
            with forked(lambda: use(2)):
                pass
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert failures == []
    assert held(home) == 0
    assert_sound(home)


def test_a_fork_while_another_thread_is_inside_a_transaction_harms_nobody(home_directory: Path) -> None:
    fork_while_others_use_the_store(home_directory, 25)


@pytest.mark.sweep
def test_many_forks_while_other_threads_are_inside_transactions_harm_nobody(home_directory: Path) -> None:
    fork_while_others_use_the_store(home_directory, 600)


def test_a_fork_while_a_thread_waits_leaves_its_place_in_line_alone(home_directory: Path) -> None:
    create_limit("gate", 1)
    peer = Peer(home_directory)
    occupancy = peer.acquire("gate")
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(use, 1)
        wait_until(lambda: place_in_line(home_directory), "the thread waits")

        def body() -> None:
            gc.collect()
            assert not is_free("gate")
            assert place_in_line(home_directory)

        with forked(body):
            pass
        assert place_in_line(home_directory)
        peer.release(occupancy)
        future.result(PATIENCE_SECONDS)
    peer.close()
    assert_sound(home_directory)


def place_in_line(home: Path) -> int:
    from .inspection import waiting

    return waiting(home)


def test_a_program_started_while_holding_neither_holds_nor_gives_back(home_directory: Path) -> None:
    create_limit("gate", 1)
    with concurrency("gate"):
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    assert is_free("gate")
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(PATIENCE_SECONDS) == 0


def test_a_program_that_outlives_its_killed_parent_keeps_no_slot(home_directory: Path) -> None:
    create_limit("gate", 1)
    program = (
        "import subprocess, sys, time\n"
        "from localconc.sync import concurrency\n"
        "block = concurrency('gate')\n"
        "block.__enter__()\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    sleeper = int(parent.stdout.readline())
    try:
        assert held(home_directory) == 1
        parent.kill()
        parent.wait()
        with concurrency("gate", timeout_seconds=PATIENCE_SECONDS) as occupancy:
            assert occupancy.waited_seconds < 5
    finally:
        os.kill(sleeper, signal.SIGKILL)
        for pipe in (parent.stdin, parent.stdout):
            assert pipe is not None
            pipe.close()


def enter_and_count(home: str, directory: str) -> int:
    """Enter, and tell how many others were inside."""
    os.environ["LOCALCONC_HOME"] = home
    with concurrency("gate", timeout_seconds=30):
        mark = Path(directory, f"{os.getpid()}-{threading.get_ident()}")
        mark.touch()
        inside = len(list(Path(directory).iterdir()))
        mark.unlink()
        return inside


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_keeps_to_the_limit(home_directory: Path, tmp_path: Path, method: str) -> None:
    create_limit("gate", 2)
    marks = tmp_path / "marks"
    marks.mkdir()
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context(method)) as pool:
        counts = list(pool.map(enter_and_count, [str(home_directory)] * 40, [str(marks)] * 40))
    assert 1 <= max(counts) <= 2
    wait_until(lambda: held(home_directory) == 0, "all is given back")
    assert_sound(home_directory)


def test_joblib_keeps_to_the_limit(home_directory: Path, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    create_limit("gate", 2)
    marks = tmp_path / "marks"
    marks.mkdir()
    task = joblib.delayed(enter_and_count)
    counts = joblib.Parallel(n_jobs=3, backend="loky")(task(str(home_directory), str(marks)) for _ in range(20))
    assert 1 <= max(counts) <= 2
    assert held(home_directory) == 0
    assert_sound(home_directory)


def enter_and_be_killed(home: str) -> None:
    os.environ["LOCALCONC_HOME"] = home
    with concurrency("gate", timeout_seconds=30):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_pool_worker_killed_in_the_middle_gives_its_slots_back(home_directory: Path) -> None:
    create_limit("gate", 1)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(enter_and_be_killed, str(home_directory))
        with pytest.raises(BrokenProcessPool):
            future.result(PATIENCE_SECONDS)
        with concurrency("gate", timeout_seconds=PATIENCE_SECONDS) as occupancy:
            assert occupancy.waited_seconds < 5
    assert_sound(home_directory)
