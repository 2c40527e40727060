"""Limits between real processes: started in every way, killed, stopped, forked in the middle."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from localconc import (
    ConcurrencySlotAcquisitionError,
    create_limit,
    read_holders,
    read_limit,
    read_waiters,
    update_limit,
)
from localconc import asyncio as for_tasks
from localconc._engine import registry
from localconc._engine.waiting import timing
from localconc.sync import concurrency, rate_limit
from tests.kit.invariants import check_store, look_at, over_limit
from tests.kit.processes import PATIENCE_SECONDS, Worker, crew, peak_overlap, spawn, stop, wait_until
from tests.kit.systems import needs_fork, needs_watch

METHODS = [method for method in ("spawn", "fork", "forkserver") if method == "spawn" or hasattr(os, "fork")]


@pytest.mark.parametrize("method", METHODS)
def test_processes_never_overlap_more_than_the_limit(method: str, localconc_home_directory: Path) -> None:
    create_limit("db", 3)
    with concurrency("db"):
        pass  # the parent has a connection of its own when it forks
    context = multiprocessing.get_context(method)
    pipe, theirs = context.Pipe()
    everybody, three_inside = context.Barrier(6), context.Barrier(3)
    arguments = (theirs, everybody, three_inside, os.environ["LOCALCONC_HOME"], 20)
    processes = [context.Process(target=_log_holds, args=arguments) for _ in range(6)]
    for process in processes:
        process.start()
    intervals = []
    for _ in processes:
        assert pipe.poll(PATIENCE_SECONDS)
        intervals += pipe.recv()
    for process in processes:
        process.join(PATIENCE_SECONDS)
    assert len(intervals) == 120
    assert peak_overlap(intervals) == 3
    assert read_limit("db").active_slots == 0
    check_store(localconc_home_directory)


def _log_holds(pipe: Connection, everybody: Barrier, three_inside: Barrier, home: str, count: int) -> None:
    os.environ["LOCALCONC_HOME"] = home  # a fork server lives on from test to test, with the home of the first
    everybody.wait(PATIENCE_SECONDS)
    intervals: list[tuple[float, float]] = []
    for _ in range(count):
        with concurrency("db"):
            begin = time.monotonic()
            if not intervals:
                three_inside.wait(PATIENCE_SECONDS)
            time.sleep(0.002)  # the work itself
            intervals.append((begin, time.monotonic()))
    pipe.send(intervals)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_holder_gives_its_slots_back_to_one_who_waits(method: str, localconc_home_directory: Path) -> None:
    create_limit("db", 1)
    with crew() as workers:
        workers.append(Worker("db", method))
        workers[0].wait_inside()
        workers.append(Worker("db", method))
        wait_until(lambda: read_waiters("db"))
        killed_at = time.monotonic()
        workers[0].kill()
        assert workers[1].wait_inside() - killed_at < 1.0
        workers[1].finish()
    check_store(localconc_home_directory)


def test_a_killed_holder_is_noticed_by_one_who_does_not_wait() -> None:
    create_limit("db", 1)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        workers[0].kill()
        with concurrency("db", timeout_seconds=0):
            assert [holder.pid for holder in read_holders("db")] == [os.getpid()]


def test_a_process_that_starts_cleans_up_after_dead_ones_whatever_they_held(localconc_home_directory: Path) -> None:
    create_limit("db", 1)
    create_limit("other", 1)
    with crew() as workers:
        workers.append(Worker("other"))
        workers[0].wait_inside()
        workers[0].kill()
        workers.append(Worker("db"))
        workers[1].wait_inside()
        with closing(look_at(localconc_home_directory)) as connection:
            assert connection.execute("SELECT count(*) FROM slots WHERE owner_id > 0").fetchone() == (1,)
        workers[1].finish()


def test_a_killed_waiter_gives_its_place_in_the_queue_back() -> None:
    create_limit("db", 2)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        workers.append(Worker("db", occupy=2))
        wait_until(lambda: len(read_waiters("db")) == 1)
        workers.append(Worker("db"))
        wait_until(lambda: len(read_waiters("db")) == 2)
        assert workers[2].is_silent()
        workers[1].kill()
        workers[2].wait_inside()
        workers[2].finish()
        workers[0].finish()


def test_a_process_that_ends_while_a_thread_of_it_waits_leaves_no_place_in_the_queue() -> None:
    create_limit("db", 1)
    script = (
        "import threading, time\nfrom localconc import read_waiters\nfrom localconc.sync import concurrency\n"
        "threading.Thread(target=concurrency('db').__enter__, daemon=True).start()\n"
        "while not read_waiters(): time.sleep(0.002)"
    )
    with concurrency("db"):
        subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE_SECONDS)
        assert read_waiters() == []
    with concurrency("db", timeout_seconds=PATIENCE_SECONDS):
        pass


def test_processes_are_served_in_the_order_they_came() -> None:
    create_limit("db", 1)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        for number in range(1, 5):
            workers.append(Worker("db"))
            wait_until(lambda number=number: len(read_waiters("db")) == number)
        entered = []
        for worker, successor in pairwise(workers):
            worker.finish()
            entered.append(successor.wait_inside())
        workers[-1].finish()
    assert entered == sorted(entered)


def test_a_stopped_holder_keeps_its_slots() -> None:
    create_limit("db", 1)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        stop(workers[0].pid)
        with pytest.raises(TimeoutError), concurrency("db", timeout_seconds=1.2):
            pass
        os.kill(workers[0].pid, signal.SIGCONT)
        workers[0].finish()
    with concurrency("db", timeout_seconds=0):
        pass


def test_a_stopped_waiter_first_in_a_draining_queue_does_not_hold_up_the_others() -> None:
    create_limit("api", 0, slot_decay_per_second=2.0)
    with crew() as workers:
        workers.append(Worker("api"))
        wait_until(lambda: read_waiters("api"))
        stop(workers[0].pid)
        update_limit("api", limit=1, active_slots=1)
        begun = time.monotonic()
        with concurrency("api", timeout_seconds=10):
            waited = time.monotonic() - begun
        # Its own slot drains after half a second, that of the stopped one half a second later.
        assert waited < 0.5 + 0.5 + 1.0 + 3.0
        os.kill(workers[0].pid, signal.SIGCONT)
        workers[0].wait_inside()
        workers[0].finish()


@needs_fork
def test_a_forked_child_does_not_release_what_its_parent_holds() -> None:
    create_limit("db", 1)
    with concurrency("db"):
        pid = os.fork()
        if pid == 0:
            os._exit(_leave_and_look())
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert read_limit("db").active_slots == 1
    assert read_limit("db").active_slots == 0


def _leave_and_look() -> int:
    return 0 if read_limit("db").active_slots == 1 else 1


@needs_fork
def test_a_child_that_leaves_its_parents_block_takes_nothing_with_it() -> None:
    create_limit("db", 1)
    block = concurrency("db")
    block.__enter__()
    pid = os.fork()
    if pid == 0:
        block.__exit__(None, None, None)
        os._exit(_leave_and_look())
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    block.__exit__(None, None, None)
    assert read_limit("db").active_slots == 0


@needs_fork
def test_a_living_child_does_not_keep_its_dead_parents_slots() -> None:
    create_limit("db", 1)
    script = (
        "import os, sys\n"
        "from localconc.sync import concurrency\n"
        "block = concurrency('db'); block.__enter__()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.close(1); sys.stdin.read(); os._exit(0)\n"
        "print(pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait(PATIENCE_SECONDS)
    os.kill(child, 0)  # it lives on
    with concurrency("db", timeout_seconds=1):
        pass
    process.stdin.close()
    process.stdout.close()


@needs_fork
def test_a_fork_while_other_threads_use_limits_harms_neither_side(localconc_home_directory: Path) -> None:
    create_limit("db", 2)
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            with concurrency("db"):
                pass

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            pid = os.fork()
            if pid == 0:
                with concurrency("db", timeout_seconds=20):
                    pass
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert over_limit(localconc_home_directory) == []
    assert read_limit("db").active_slots == 0
    check_store(localconc_home_directory)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_hundred_processes_open_a_store_that_does_not_exist_yet(localconc_home_directory: Path) -> None:
    script = (
        "import os, sys\n"
        "from localconc.sync import concurrency\n"
        "gate, opener = os.pipe()\n"
        "def use_at_once():\n"
        "    os.close(opener)\n"
        "    os.read(gate, 1)\n"  # returns when this pipe is open for writing in no process any more
        "    with concurrency('db', limit=100): pass\n"
        "children = []\n"
        "for _ in range(100):\n"
        "    children.append(os.fork())\n"
        "    if not children[-1]: use_at_once(); sys.exit()\n"
        "print(os.path.exists(os.environ['LOCALCONC_HOME']))\n"
        "os.close(opener)\n"
        "print(sum(os.waitpid(child, 0)[1] == 0 for child in children))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert (result.stderr, result.stdout) == ("", "False\n100\n")
    assert read_limit("db").active_slots == 0
    check_store(localconc_home_directory)


@pytest.mark.sweep
def test_a_hundred_programs_open_a_store_that_does_not_exist_yet(localconc_home_directory: Path) -> None:
    script = (
        "import sys\n"
        "from localconc.sync import concurrency\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with concurrency('db', limit=100): pass\n"
    )
    processes = []
    for _ in range(100):  # one after the other, so that what runs beside this test gets its share of the processors
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        processes.append(subprocess.Popen([sys.executable, "-c", script], text=True, **pipes))
        assert processes[-1].stdout.readline() == "ready\n"
    assert not localconc_home_directory.exists()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    complaints = [process.communicate(timeout=100)[1] for process in processes]
    assert [text for text in complaints if text] == []
    assert [process.returncode for process in processes] == [0] * 100
    assert read_limit("db").active_slots == 0
    check_store(localconc_home_directory)


def test_a_timeout_is_kept_while_another_process_is_stopped_inside_the_stores_lock(
    localconc_home_directory: Path,
) -> None:
    create_limit("db", 1)
    script = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE'); print('inside', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(localconc_home_directory / "localconc.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    os.kill(process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"timed out after 0.3 second"), concurrency("db", timeout_seconds=0.3):
        pass
    assert time.monotonic() - begun < 5
    process.kill()
    process.communicate()
    with concurrency("db", timeout_seconds=1):
        pass


def test_giving_back_waits_for_the_store_without_losing_anything(
    localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "RELEASE_PATIENCE_SECONDS", 0.2)
    create_limit("db", 1)
    with concurrency("db"):
        blocker = sqlite3.connect(localconc_home_directory / "localconc.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
    # The block was left although the store was held up; its slots follow as soon as it is free.
    blocker.execute("ROLLBACK")
    blocker.close()
    wait_until(lambda: read_limit("db").active_slots == 0)


def test_raising_a_limit_wakes_those_who_wait_in_other_processes() -> None:
    create_limit("db", 1)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        workers += [Worker("db"), Worker("db")]
        wait_until(lambda: len(read_waiters("db")) == 2)
        update_limit("db", limit=3)
        for worker in workers[1:]:
            worker.wait_inside()
        for worker in workers:
            worker.finish()


@needs_watch
def test_a_dead_process_that_is_cleared_up_need_not_be_looked_after_any_more() -> None:
    create_limit("db", 1)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        workers[0].kill()
        reaper = registry.current().reaper
        reaper.watch_in_front(limit_ids("db"), None)
        assert reaper.is_complete
        assert reaper.recheck_at is None
        assert read_holders("db") == []


@needs_watch
def test_a_process_that_has_left_is_not_cleared_up_after_by_all_who_watched_it(monkeypatch: pytest.MonkeyPatch) -> None:
    create_limit("db", 1)
    engine = registry.current()
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        engine.reaper.watch_in_front(limit_ids("db"), None)
        workers[0].finish()
    wait_until(engine.reaper.has_news)
    with monkeypatch.context() as patched:
        patched.setattr(engine.store, "transact", lambda work: pytest.fail("there was nothing to write"))
        engine.reaper.reap_suspects()
    assert not engine.reaper.has_news()


def limit_ids(name: str) -> list[int]:
    row = registry.current().store.read(lambda ledger: ledger.limit_named(name))
    assert row is not None
    return [row.id]


def test_a_death_is_noticed_in_a_store_that_was_built_anew(localconc_home_directory: Path) -> None:
    """Where the processes have other numbers than those that this one knew."""
    create_limit("db", 1)
    with crew() as workers:
        for _ in range(3):
            _wait_for_a_killed_holder(workers)
        for path in localconc_home_directory.glob("localconc.db-*"):
            path.unlink()
        garbage = localconc_home_directory / "garbage"
        garbage.write_bytes(b"garbage" * 4_000)
        garbage.replace(localconc_home_directory / "localconc.db")
        registry.current().store.database.verify_after = 0.0
        with concurrency("db", timeout_seconds=5):
            pass
        _wait_for_a_killed_holder(workers)


def _wait_for_a_killed_holder(workers: list[Worker]) -> None:
    workers.append(Worker("db"))
    workers[-1].wait_inside()
    killer = threading.Thread(target=_kill_once_somebody_waits, args=(workers[-1],))
    killer.start()
    with concurrency("db", timeout_seconds=10) as occupancy:
        assert occupancy.waited_seconds < 5
    killer.join(10)


def _kill_once_somebody_waits(worker: Worker) -> None:
    wait_until(lambda: read_waiters("db"))
    time.sleep(2 * timing.WATCH_AFTER_SECONDS)  # whoever waits has looked whom to watch by then
    worker.kill()


def test_the_death_of_one_who_came_later_and_is_in_front_all_the_same_is_noticed() -> None:
    create_limit("x", 0)
    create_limit("q", 1)
    with crew() as workers:
        workers.append(Worker(["x", "y"], create_if_missing=False, timeout_seconds=20))
        wait_until(lambda: read_waiters("x"))
        asked_at = read_waiters("x")[0].waiting_since.timestamp()
        wait_until(lambda: time.time() - asked_at > 10 * timing.WATCH_AFTER_SECONDS)  # it knows whom to watch
        workers.append(Worker("q"))
        workers[1].wait_inside()
        update_limit("q", name="y")
        update_limit("x", limit=1)
        assert [waiter.names for waiter in read_waiters("y")] == [("x", "y")]
        workers[1].kill()  # and nobody but the one who waits is there to notice
        assert workers[0].pipe.poll(5)
        workers[0].wait_inside()
        workers[0].finish()


@pytest.mark.parametrize("face", ["thread", "task"])
def test_a_stopped_process_with_many_waiters_does_not_hold_up_the_others(face: str) -> None:
    create_limit("api", 0, slot_decay_per_second=10.0)
    stopped = spawn.Process(target=_wait_in_threads, args=(os.environ["LOCALCONC_HOME"], "api", 6))
    stopped.start()
    try:
        wait_until(lambda: len(read_waiters("api")) == 6)
        admitted_at: list[float] = []

        async def wait_as_a_task() -> None:
            await for_tasks.rate_limit("api")
            admitted_at.append(time.monotonic())

        def wait() -> None:
            if face == "task":
                asyncio.run(wait_as_a_task())
            else:
                rate_limit("api")
                admitted_at.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: len(read_waiters("api")) == 7)
        assert stopped.pid is not None
        stop(stopped.pid)
        begun = time.monotonic()
        update_limit("api", limit=1)
        thread.join(20)
        assert admitted_at[0] - begun < 6 / 10.0 + 1.0 + 0.5  # their grants, what is allowed, and a noisy machine
    finally:
        stopped.kill()
        stopped.join(PATIENCE_SECONDS)


def _wait_in_threads(home: str, name: str, count: int) -> None:
    os.environ["LOCALCONC_HOME"] = home
    threads = [threading.Thread(target=rate_limit, args=(name,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_trying_once_does_not_wait_for_good_for_a_store_that_is_held_up(
    localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_limit("db", 1)
    monkeypatch.setattr(timing, "STORE_TIMEOUT_SECONDS", 0.2)
    blocker = sqlite3.connect(localconc_home_directory / "localconc.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConcurrencySlotAcquisitionError, match="another process held the database"):
        concurrency("db", max_retries=0).__enter__()
    blocker.execute("ROLLBACK")
    blocker.close()
