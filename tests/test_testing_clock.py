"""Virtual time: it stands still while somebody works, and jumps when everybody waits."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from localconc import AcquireConcurrencySlotTimeoutError, ensure_limit, home, read_limit, read_waiters
from localconc import asyncio as for_tasks
from localconc._engine.core.clock import SystemClock
from localconc.sync import concurrency, rate_limit
from localconc.testing import VirtualClock, hold, temporary_home, virtual_clock
from localconc.testing import clock as clocks
from localconc.testing.participants import Wait
from tests.kit.systems import needs_fork

PATIENCE_SECONDS = 20.0


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with temporary_home(), virtual_clock() as clock:
        yield clock


def until(condition: object, *args: object) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition(*args):  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


# ---- threads ---------------------------------------------------------------------------------------------------------


def test_a_hundred_slots_at_one_a_second_take_95_seconds_of_no_time(clock: VirtualClock) -> None:
    begun = time.monotonic()
    for _ in range(100):
        rate_limit("api", limit=5, slot_decay_per_second=1)
    assert clock.elapsed == 95.0
    assert time.monotonic() - begun < 5


def test_threads_share_the_time_while_the_main_thread_joins_them(clock: VirtualClock) -> None:
    ensure_limit("api", 5, slot_decay_per_second=1)
    threads = [threading.Thread(target=lambda: [rate_limit("api") for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert clock.elapsed == 15.0


def test_a_pool_of_threads_shares_the_time(clock: VirtualClock) -> None:
    ensure_limit("api", 1, slot_decay_per_second=10)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: rate_limit("api"), range(11)))
        assert clock.elapsed == pytest.approx(1.0)
        list(pool.map(lambda _: rate_limit("api"), range(10)))
    assert clock.elapsed == pytest.approx(2.0)


def test_a_timeout_passes_at_once_and_counts_its_whole_time(clock: VirtualClock) -> None:
    ensure_limit("database", 1)
    release = threading.Event()
    entered = threading.Event()

    def holder() -> None:
        with concurrency("database"):
            entered.set()
            release.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=holder)
    thread.start()
    entered.wait(PATIENCE_SECONDS)
    with pytest.raises(AcquireConcurrencySlotTimeoutError, match="after 3600 second"):
        concurrency("database", timeout_seconds=3600).__enter__()
    release.set()
    thread.join(PATIENCE_SECONDS)
    assert clock.elapsed == 3600.0


def test_a_holder_at_work_is_not_overtaken_by_a_timeout(clock: VirtualClock) -> None:
    """It computes, it sleeps for real: either way the one who waits gets the slot, and no time has passed."""
    ensure_limit("database", 1)
    inside = threading.Event()

    def holder() -> None:
        with concurrency("database"):
            inside.set()
            until(lambda: read_waiters("database"))
            end = time.monotonic() + 0.05
            while time.monotonic() < end:
                sum(range(100))
            time.sleep(0.05)

    thread = threading.Thread(target=holder)
    thread.start()
    inside.wait(PATIENCE_SECONDS)
    with concurrency("database", timeout_seconds=1) as occupancy:
        assert occupancy.waited_seconds == 0.0
    thread.join(PATIENCE_SECONDS)
    assert clock.elapsed == 0.0


def test_a_thread_that_was_just_woken_counts_as_at_work(clock: VirtualClock) -> None:
    """Handing work over a queue leaves no gap through which the time of the one who waits could slip."""
    ensure_limit("database", 1)
    orders: queue.Queue[bool] = queue.Queue()

    def worker() -> None:
        while orders.get():
            with concurrency("database", timeout_seconds=1):
                pass

    thread = threading.Thread(target=worker)
    thread.start()
    for _ in range(20):
        with concurrency("database"):
            orders.put(True)
            until(lambda: read_waiters("database"))
        with concurrency("database", timeout_seconds=1):
            pass
    orders.put(False)
    thread.join(PATIENCE_SECONDS)
    assert clock.elapsed == 0.0


def test_retries_come_in_virtual_time(clock: VirtualClock) -> None:
    ensure_limit("database", 1)
    with hold("database"), pytest.raises(Exception, match="no retries are left"):
        concurrency("database", max_retries=2).__enter__()
    assert clock.elapsed > 3.0


def test_without_autojump_only_advance_moves_the_time() -> None:
    with temporary_home(), virtual_clock(autojump=False) as clock:
        ensure_limit("api", 1, slot_decay_per_second=1)
        rate_limit("api")
        passed: list[float] = []

        def taker() -> None:
            rate_limit("api")
            passed.append(clock.elapsed)

        thread = threading.Thread(target=taker)
        thread.start()
        until(lambda: read_waiters("api"))
        clock.advance(0.75)
        assert read_limit("api").active_slots == 1
        assert thread.is_alive()
        clock.advance(0.25)
        thread.join(PATIENCE_SECONDS)
        assert passed == [1.0]
        assert clock.elapsed == 1.0


def test_autojump_that_is_switched_on_jumps_at_once(clock: VirtualClock) -> None:
    clock.autojump = False
    ensure_limit("api", 1, slot_decay_per_second=1)
    rate_limit("api")
    thread = threading.Thread(target=rate_limit, args=("api",))
    thread.start()
    until(lambda: "1 waiting" in repr(clock))
    clock.autojump = True
    thread.join(clocks.PATIENCE_SECONDS / 2)
    assert not thread.is_alive()
    assert clock.elapsed == 1.0


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_time_does_not_go_back(clock: VirtualClock, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        clock.advance(seconds)


def test_a_request_that_nobody_will_ever_answer_neither_spins_nor_moves_the_time(clock: VirtualClock) -> None:
    ensure_limit("database", 0)
    thread = threading.Thread(target=_take_and_leave, daemon=True)
    thread.start()
    until(lambda: read_waiters("database"))
    spent = time.process_time()
    thread.join(0.3)
    assert time.process_time() - spent < 0.15
    assert clock.elapsed == 0.0
    ensure_limit("database", 1)
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def _take_and_leave() -> None:
    with concurrency("database"):
        pass


def test_standing_still_for_long_is_explained(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "PATIENCE_SECONDS", 0.05)
    ensure_limit("database", 1)
    with hold("database"):
        thread = threading.Thread(
            target=_time_out,
        )
        thread.start()
        with caplog.at_level(logging.WARNING, logger="localconc"):
            until(lambda: "stands still" in caplog.text)
        assert "thread 'MainThread' is at work in until" in caplog.text
        assert clock.elapsed == 0.0
        clock.advance(1)
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def _time_out() -> None:
    with pytest.raises(TimeoutError):
        concurrency("database", timeout_seconds=1).__enter__()


# ---- the block -------------------------------------------------------------------------------------------------------


def test_it_decorates_functions_and_coroutine_functions() -> None:
    @temporary_home()
    @virtual_clock()
    def in_a_thread() -> None:
        for _ in range(3):
            rate_limit("api", limit=1, slot_decay_per_second=0.001)

    @temporary_home()
    @virtual_clock()
    async def in_a_task() -> None:
        for _ in range(3):
            await for_tasks.rate_limit("api", limit=1, slot_decay_per_second=0.001)

    in_a_thread()
    asyncio.run(in_a_task())


def test_real_time_is_back_after_the_block() -> None:
    with temporary_home(), virtual_clock() as clock:
        clock.advance(1_000_000)
    with temporary_home():
        ensure_limit("database", 1)
        with concurrency("database") as occupancy:
            assert abs(occupancy.acquired_at.timestamp() - time.time()) < 60


def test_it_begins_exactly_now_and_not_in_the_future() -> None:
    """What was taken before the block in the same home drains on without a gap."""
    with temporary_home():
        before = time.time()
        with virtual_clock(), concurrency("database", limit=1) as occupancy:
            assert before <= occupancy.acquired_at.timestamp() + 1e-6
            assert occupancy.acquired_at.timestamp() <= time.time()


@pytest.mark.parametrize("uptime", [0.1, 12345.678901, 3e7 + 1 / 3])
def test_elapsed_is_exact_whenever_the_block_begins(monkeypatch: pytest.MonkeyPatch, uptime: float) -> None:
    monkeypatch.setattr(SystemClock, "now", staticmethod(lambda: uptime))
    with temporary_home(), virtual_clock() as clock:
        for _ in range(101):
            rate_limit("api", limit=1, slot_decay_per_second=10)
        assert clock.elapsed == 10.0
        clock.advance(0.1)
        clock.advance(0.2)
        assert clock.elapsed == 10.3


def test_only_one_is_in_force(clock: VirtualClock) -> None:
    with pytest.raises(RuntimeError, match="in force already"), virtual_clock():
        pass


def test_the_thread_that_moves_the_time_may_use_the_engine(clock: VirtualClock) -> None:
    """It collects garbage like any other thread, and so may release slots; it does not count as busy ever after."""
    ensure_limit("api", 1, slot_decay_per_second=1)
    users: list[str] = []

    def wake() -> None:
        garbage.until = None
        read_limit("api")
        users.append(threading.current_thread().name)

    garbage = Wait(SystemClock.now() + 0.5, wake)
    clock._participants.waits["garbage"] = garbage
    rate_limit("api")
    rate_limit("api")
    assert users == ["localconc-virtual-clock"]
    rate_limit("api")
    assert clock.elapsed == 2.0


def test_a_thread_with_the_number_of_an_earlier_one_is_another_thread(clock: VirtualClock) -> None:
    """One that used localconc has ended; a later one gets its ident, works, and has nothing to do with localconc."""
    ensure_limit("api", 1, slot_decay_per_second=1)
    user = threading.Thread(target=rate_limit, args=("api",))
    user.start()
    user.join()
    is_done = threading.Event()
    for _ in range(50):
        works = threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(is_done.is_set, True)], daemon=True)
        works.start()
        if works.ident == user.ident:
            break
    else:
        is_done.set()
        pytest.skip("no thread gets an old ident here")
    rate_limit("api")
    is_done.set()
    assert clock.elapsed == 1.0


def test_it_keeps_out_of_the_users_own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALCONC_HOME")
    own = home()
    with virtual_clock() as clock:
        assert home() != own
        for _ in range(20):
            rate_limit("api", limit=5, slot_decay_per_second=1)
    assert clock.elapsed == 15
    assert home() == own


def test_who_waits_when_the_block_is_left_gets_an_error() -> None:
    errors: queue.Queue[BaseException] = queue.Queue()

    def wait() -> None:
        try:
            concurrency("database").__enter__()
        except RuntimeError as error:
            errors.put(error)

    with temporary_home():
        with virtual_clock() as clock:
            ensure_limit("database", 0)
            thread = threading.Thread(target=wait)
            thread.start()
            until(lambda: "1 waiting" in repr(clock))
        assert "was left" in str(errors.get(timeout=PATIENCE_SECONDS))
        thread.join(PATIENCE_SECONDS)


def test_another_process_in_the_same_home_is_an_error_for_the_one_who_waits() -> None:
    with temporary_home(), virtual_clock(autojump=False):
        ensure_limit("database", 0)
        # Started as if outside the block: it lives by real time.
        environment = {**os.environ, "LOCALCONC_VIRTUAL_CLOCK": ""}
        script = "import sys, localconc; localconc.read_limits(); print('there', flush=True); sys.stdin.read()"
        other = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert other.stdin is not None
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "there\n"
            with pytest.raises(RuntimeError, match=rf"pids {other.pid}\).*one process alone"):
                concurrency("database").__enter__()
        finally:
            other.communicate()


def _use(errors: multiprocessing.SimpleQueue[str]) -> None:
    try:
        read_limit("database")
        errors.put("none")
    except RuntimeError as error:
        errors.put(str(error))


@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_is_told_that_it_can_not_share_the_time(clock: VirtualClock, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    ensure_limit("database", 1)
    context = multiprocessing.get_context(method)
    errors = context.SimpleQueue()
    child = context.Process(target=_use, args=(errors,))
    child.start()
    said = errors.get()
    child.join()
    assert f"started by pid {os.getpid()} inside virtual_clock()" in said
