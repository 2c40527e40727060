"""Threads of one process: an interrupt keeps none of them waiting, and none of them sees a state of between."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from localconc import create_limit, read_holders, read_limit, read_limits, read_waiters
from localconc._locks import ENDLESSLY, InterruptibleLock
from localconc.sync import concurrency, rate_limit

PATIENCE_SECONDS = 30.0
INTERRUPTS = 200

needs_signals = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system has no such signals")


class Interrupt(BaseException):
    """What the handler of the tests' signal raises."""


@pytest.fixture
def interrupted() -> Iterator[Callable[[Callable[[], None]], None]]:
    """A function that does something again and again, until a signal's handler raises somewhere in it."""
    struck: list[int] = []

    def strike(number: int, frame: FrameType | None) -> None:
        struck.append(number)
        raise Interrupt

    def repeat(action: Callable[[], None]) -> None:
        struck.clear()
        with suppress(Interrupt):
            threading.Timer(random.uniform(0.0001, 0.002), signal.pthread_kill, [main, signal.SIGUSR1]).start()
            for _ in ENDLESSLY:
                if struck:  # a finalizer may have swallowed what the handler raised
                    break
                action()

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, strike)
    yield repeat
    signal.signal(signal.SIGUSR1, before)


def in_another_thread(work: Callable[[], Any]) -> Any:
    """Return what a thread returns that may hang."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert found, "the thread hangs"
    return found[0]


@needs_signals
def test_an_interrupt_leaves_no_lock_taken(interrupted: Callable[[Callable[[], None]], None]) -> None:
    lock = InterruptibleLock()

    def take() -> None:
        with lock:
            pass

    for _ in range(INTERRUPTS):
        interrupted(take)
        assert not lock._is_owned()
    assert in_another_thread(lambda: lock.acquire(blocking=False))


@needs_signals
def test_after_an_interrupt_other_threads_go_on(interrupted: Callable[[Callable[[], None]], None]) -> None:
    create_limit("db", 5)

    def take() -> None:
        with concurrency("db"):
            pass

    for _ in range(INTERRUPTS):
        interrupted(take)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while in_another_thread(lambda: read_limit("db").active_slots):  # what an interrupt lost is released behind it
        assert time.monotonic() < deadline, "an interrupt left a slot behind"


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can, where it lets only one run at a time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_threads_that_do_everything_at_once_never_exceed_a_limit() -> None:
    """Without a global lock of the interpreter, they really run at the same time."""
    limits = {"one": 1, "three": 3}
    for name, limit in limits.items():
        create_limit(name, limit)
    create_limit("rate", 1_000, slot_decay_per_second=10_000)
    inside: Counter[str] = Counter()
    numbers: set[tuple[str, int]] = set()
    guard = threading.Lock()
    ends_at = time.monotonic() + 1.5

    def enter(names: list[str], taken: set[tuple[str, int]]) -> None:
        with guard:
            inside.update(names)
            assert all(inside[name] <= limits[name] for name in names), inside
            assert not taken & numbers, "two threads have the same slot"
            numbers.update(taken)

    def leave(names: list[str], taken: set[tuple[str, int]]) -> None:
        with guard:
            inside.subtract(names)
            numbers.difference_update(taken)

    def work(seed: int) -> int:
        chance, rounds = random.Random(seed), 0
        while time.monotonic() < ends_at:
            rounds += 1
            names = chance.choice([["one"], ["three"], ["one", "three"]])
            try:
                with concurrency(names, timeout_seconds=chance.choice([0, 0.01, PATIENCE_SECONDS])) as occupancy:
                    taken = {(name, number) for name in names for number in occupancy.numbers_of(name)}
                    enter(names, taken)
                    leave(names, taken)
            except TimeoutError:
                pass
            chance.choice([read_limits, read_holders, read_waiters, lambda: rate_limit("rate")])()
        return rounds

    with ThreadPoolExecutor(8) as threads:
        rounds = [thread.result(PATIENCE_SECONDS) for thread in [threads.submit(work, seed) for seed in range(8)]]
    assert sum(rounds) > len(rounds)
    assert [read_limit(name).active_slots for name in limits] == [0, 0]
    assert read_holders() == read_waiters() == []
