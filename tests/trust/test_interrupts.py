"""KeyboardInterrupt at every bytecode boundary: afterwards a block holds its slots, or nobody does."""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from localconc import create_limit, update_limit
from localconc._engine import registry
from localconc._engine.core.clock import SystemClock
from localconc._engine.homes import files
from localconc.errors import AcquireConcurrencySlotTimeoutError
from localconc.sync import concurrency, rate_limit

from .inspection import assert_sound, held, in_thread, wait_until, waiting
from .interrupting import Interruption
from .peers import Peer

Scenario = Callable[["Stage"], None]

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # struck in a finalizer


class ScriptedClock(SystemClock):
    """The machine's time; when a thread is about to sleep, something happens first."""

    def __init__(self) -> None:
        self.when_about_to_sleep: Callable[[], None] = lambda: None

    def pause(self, mailbox: Any, until: float | None, watched_fd: int | None) -> None:
        self.when_about_to_sleep()
        super().pause(mailbox, until, watched_fd)


class Stage:
    """A home with one limit, this process, and another one that does something at the moment it is told to."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clock = ScriptedClock()
        registry.use_clock(self.clock)
        create_limit("gate", 1)
        create_limit("other", 5)
        create_limit("rate", 1, slot_decay_per_second=100.0)
        self.peer = Peer(home)
        self.interruption = Interruption(0)

    def run(self, scenario: Scenario, at: int) -> Interruption:
        """Play a scenario with an interrupt at a step; nothing is left of it then."""
        self.clock.when_about_to_sleep = lambda: None
        self.interruption = Interruption(at)
        self.interruption(lambda: scenario(self))
        self.assert_nothing_left()
        return self.interruption

    def held_by_peer(self) -> Callable[[], None]:
        """Let the other process take the slot; return what releases it."""
        with self.interruption.paused():
            handle = self.peer.acquire("gate")

        def release() -> None:
            with self.interruption.paused():
                self.peer.release(handle)

        return release

    def assert_nothing_left(self) -> None:
        place = self.interruption.place
        self.recover()
        engine = registry.current()
        wait_until(lambda: held(self.home) == 0, f"slots are given back after an interrupt at {place}")
        wait_until(lambda: waiting(self.home) == 0, f"the queue is left after an interrupt at {place}")
        wait_until(lambda: not engine.holdings.grants, f"nothing is on record after an interrupt at {place}")
        assert_sound(self.home)
        self.peer.release(self.peer.acquire("gate", timeout_seconds=5))
        self.enter_and_leave()
        in_thread(self.enter_and_leave)

    def recover(self) -> None:
        """Let go of what an interrupt left that no signal can cause; no code could have done so there."""
        gc.collect()
        if not self.interruption.is_real:
            engine = registry.current()
            placing = getattr(files, "_placing", None)  # only where Python has no pwrite
            for lock in filter(None, (placing, engine.mailboxes._lock, engine.store.database.lock)):
                release_wholly(lock)
            registry.current().store.database.ensure_open()

    def enter_and_leave(self) -> None:
        with concurrency("gate", timeout_seconds=5):
            assert held(self.home, "gate") == 1


def release_wholly(lock: Any) -> None:
    while lock._is_owned():
        lock.release()


@pytest.fixture
def stage(home_directory: Path) -> Iterator[Stage]:
    gc.collect()
    gc.freeze()  # what was there before is not looked through again and again
    stage = Stage(home_directory)
    yield stage
    gc.unfreeze()
    stage.peer.close()
    registry.use_clock(None)


def in_the_common_case(stage: Stage) -> None:
    with concurrency("gate") as occupancy:  # kept by this frame beyond the block
        assert occupancy.slots == 1


def by_the_general_rules(stage: Stage) -> None:
    with concurrency(["gate", "other"], limit=1):
        pass


def after_forgetting_the_limit(stage: Stage) -> None:
    registry.current().acquisitions.forget_definitions()
    in_the_common_case(stage)


def in_a_decorated_function(stage: Stage) -> None:
    @concurrency("gate")
    def body() -> None:
        pass

    body()


def while_waiting(stage: Stage) -> None:
    stage.clock.when_about_to_sleep = release = stage.held_by_peer()
    try:
        with concurrency("gate"):
            stage.clock.when_about_to_sleep = lambda: None
    except KeyboardInterrupt:
        stage.recover()
        if held(stage.home, "gate") and "peer" in holders_of(stage.home):
            release()
        raise


def while_timing_out(stage: Stage) -> None:
    release = stage.held_by_peer()
    try:
        with concurrency("gate", timeout_seconds=0.001):
            pass
    except AcquireConcurrencySlotTimeoutError:
        pass
    finally:
        stage.recover()
        release()


def while_refused(stage: Stage) -> None:
    release = stage.held_by_peer()
    try:
        with concurrency("gate", timeout_seconds=0):
            pass
    except AcquireConcurrencySlotTimeoutError:
        pass
    finally:
        stage.recover()
        release()


def while_handing_off(stage: Stage) -> None:
    with stage.interruption.paused():
        occupancy = concurrency("gate")
        occupancy.__enter__()
    done = threading.Event()

    def wait_in_line() -> None:
        stage.peer.release(stage.peer.acquire("gate"))
        done.set()

    thread = threading.Thread(target=wait_in_line)
    thread.start()
    wait_until(lambda: waiting(stage.home), "the other process waits")
    with suppress(KeyboardInterrupt):  # and with it, the frames of its traceback
        occupancy.__exit__(None, None, None)
    del occupancy
    stage.recover()
    assert done.wait(10), f"the next in line was not served after an interrupt at {stage.interruption.place}"
    thread.join()


def while_waiting_for_a_rate(stage: Stage) -> None:
    rate_limit("rate")
    rate_limit("rate")


def holders_of(home: Path) -> list[str]:
    from .inspection import rows

    return [row[0] for row in rows(home, "SELECT thread FROM slots WHERE owner_id > 0")]


SCENARIOS = [
    in_the_common_case,
    by_the_general_rules,
    after_forgetting_the_limit,
    in_a_decorated_function,
    while_waiting,
    while_timing_out,
    while_refused,
    while_handing_off,
    while_waiting_for_a_rate,
]


def sweep(stage: Stage, scenario: Scenario, stride: int) -> tuple[int, int]:
    """Interrupt a scenario at every `stride`-th step; returns how many places, and how many a signal can reach."""
    stage.run(scenario, 0)
    real = 0
    for count in itertools.count():
        interruption = stage.run(scenario, 1 + count * stride)
        if not interruption.place:
            return count, real
        real += interruption.is_real
    raise AssertionError


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_an_interrupt_leaves_no_slot_behind(stage: Stage, scenario: Scenario) -> None:
    update_limit("rate", slot_decay_per_second=20.0)  # faster ones could drain before the second call
    stage.run(scenario, 0)
    points, _ = sweep(stage, scenario, max(29, stage.run(scenario, 0).steps // 20))
    assert points > 5


@pytest.mark.sweep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_an_interrupt_at_any_step_leaves_no_slot_behind(
    stage: Stage, scenario: Scenario, capsys: pytest.CaptureFixture[str]
) -> None:
    points, real = sweep(stage, scenario, 1)
    with capsys.disabled():
        print(f"\n{scenario.__name__}: {points} boundaries, {real} of them within reach of a signal")
    assert points > 300


def test_an_exception_that_is_kept_keeps_no_lock(stage: Stage) -> None:
    """Notebooks and debuggers keep the last traceback, and with it all its frames."""
    stage.run(after_forgetting_the_limit, 0)
    kept: list[BaseException] = []
    for at in range(1, 3000, 41):
        interruption = stage.interruption = Interruption(at)

        def action() -> None:
            try:
                after_forgetting_the_limit(stage)
            except KeyboardInterrupt as error:
                kept.append(error)

        interruption(action)
        if not interruption.place:
            return
        if interruption.is_real:
            assert stage.peer.engine.store.database.path.exists()
            stage.peer.release(stage.peer.acquire("other", timeout_seconds=5))
        kept.clear()
        stage.assert_nothing_left()
    raise AssertionError("the scenario did not end")


def test_a_block_that_is_lost_is_given_back_without_a_step_that_an_interrupt_could_strike(stage: Stage) -> None:
    blocks = [concurrency("gate")]
    blocks[0].__enter__()
    assert held(stage.home) == 1
    by_nothing, by_loss = Interruption(0), Interruption(0)
    by_nothing([].clear)
    by_loss(blocks.clear)
    assert by_loss.steps == by_nothing.steps
    wait_until(lambda: held(stage.home) == 0, "the lost block's slot is given back")


def test_a_block_that_was_dropped_is_waited_for_and_no_deadlock(stage: Stage) -> None:
    for _ in range(20):
        block = concurrency("gate")
        block.__enter__()
        del block  # released in the background, sooner or later
        with concurrency("gate"):  # has no end, and asks whether it waits for itself
            pass


class Storm:
    """Real signals at random moments, now and then while the last one is still being dealt with.

    Args:
        seed: of the moments.
    """

    def __init__(self, seed: int) -> None:
        self._generator = random.Random(seed)
        self._left = 0
        self.struck = 0

    def rage(self, action: Callable[[], object], seconds: float) -> None:
        """Repeat an action for some time, and interrupt it."""
        before = signal.signal(signal.SIGALRM, self._strike)
        report, sys.unraisablehook = sys.unraisablehook, bool  # what strikes in a finalizer is not reported
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                self._endure(action, 4)
                gc.collect()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            sys.unraisablehook = report

    def _endure(self, action: Callable[[], object], levels: int) -> None:
        try:
            if levels > 1:
                self._endure(action, levels - 1)
            else:
                self._left = self._generator.randint(1, 3)
            signal.setitimer(signal.ITIMER_REAL, self._generator.uniform(0.00003, 0.001))
            while self._left:
                action()
        except KeyboardInterrupt:
            pass

    def _strike(self, signum: int, frame: object) -> None:
        if self._left:
            self._left -= 1
            self.struck += 1
            signal.setitimer(signal.ITIMER_REAL, self._generator.uniform(0.00001, 0.0003))
            raise KeyboardInterrupt


def enter_two(stage: Stage) -> None:
    with concurrency("gate") as occupancy, concurrency(["other"], limit=5):
        assert occupancy.slots == 1


def assert_a_storm_passes(stage: Stage, seconds: float) -> None:
    seed = int(os.environ.get("LOCALCONC_TEST_SEED", random.randrange(2**32)))
    print(f"LOCALCONC_TEST_SEED={seed}")
    storm = Storm(seed)
    storm.rage(lambda: enter_two(stage), seconds)
    assert storm.struck > 20
    stage.assert_nothing_left()


def test_a_storm_of_signals_leaves_no_slot_behind(stage: Stage) -> None:
    assert_a_storm_passes(stage, 1.0)


@pytest.mark.sweep
def test_a_long_storm_of_signals_leaves_no_slot_behind(stage: Stage) -> None:
    assert_a_storm_passes(stage, 20.0)
