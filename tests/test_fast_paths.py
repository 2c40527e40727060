"""What the fast statements serve goes as by the rules, and ends as soon as the rules would say anything else."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localconc import create_limit, read_history, read_limit
from localconc._engine import registry
from localconc._engine.core.calls import RATE_LIMIT, Request
from localconc._engine.engine import Engine
from localconc._engine.holding.holdings import Handle
from localconc._engine.operations import limits as operations
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from localconc.sync import Occupancy, acquire, concurrency, rate_limit
from tests.kit.clocks import ManualClock
from tests.kit.engines import kill, silent_engine
from tests.kit.invariants import check_store

NAMES = ["first", "second", "third"]


@contextmanager
def nothing_goes_by_the_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if a call inside is not served by the fast statements."""
    with monkeypatch.context() as patch:
        patch.setattr(registry.current().acquisitions, "try_acquire", pytest.fail)
        yield


@pytest.fixture
def elsewhere(localconc_home_directory: Path) -> Iterator[Engine]:
    """Another process, of which this one hears nothing."""
    engine = silent_engine(localconc_home_directory, registry.SystemClock())
    engine.store.database.ensure_open()
    yield engine
    kill(engine)


# ---- the same decisions ----------------------------------------------------------------------------------------------

calls = st.lists(
    st.tuples(st.sampled_from([0.0, 1e-3, 0.1, 0.7, 3.0, 50.0]), st.integers(1, 4)), min_size=1, max_size=25
)


@settings(max_examples=30, deadline=None)
@given(calls=calls, limit=st.integers(0, 5), decay=st.sampled_from([1e-3, 0.3, 1.0, 7.0, 1e3]))
def test_a_rate_is_what_the_rules_make_of_it(calls: list[tuple[float, int]], limit: int, decay: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        by_rules = silent_engine(Path(directory, "by rules"), ManualClock())
        fast = silent_engine(Path(directory, "fast"), ManualClock())
        for engine in (by_rules, fast):
            operations.create(engine, "api", limit, active=True, active_slots=0, decay=decay)
        for seconds, slots in calls:
            request = Request(("api",), slots, RATE_LIMIT)
            fast.clock.advance(seconds)
            by_rules.clock.advance(seconds)
            was_admitted = fast.acquisitions.acquire_fast(request, "", 0) is not None or _try_once(fast, request)
            assert was_admitted == _try_once(by_rules, request)
            assert _moments(fast) == _moments(by_rules)
        kill(by_rules)
        kill(fast)


def _try_once(engine: Engine, request: Request) -> bool:
    handle = engine.holdings.begin("", "", 0)
    try:
        return isinstance(engine.acquisitions.try_acquire(request, handle, None), Handle)
    except ConcurrencySlotAcquisitionError:
        return False
    finally:
        engine.holdings.forget(handle.serial)


def _moments(engine: Engine) -> tuple[float, float | None]:
    row = engine.store.read(lambda ledger: ledger.limit_named("api"))
    assert row is not None
    return row.empty_at, row.empty_at_wall


def test_what_a_rate_took_is_in_the_history_with_who_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    create_limit("api", 10, slot_decay_per_second=0.001)
    rate_limit("api", 2)
    with nothing_goes_by_the_rules(monkeypatch):
        rate_limit("api", 2)
    for acquisition in read_history("api"):
        assert (acquisition.slots, acquisition.thread, acquisition.waited_seconds) == (2, "MainThread", 0.0)
    assert read_limit("api").active_slots == 4


# ---- several limits --------------------------------------------------------------------------------------------------


def test_several_limits_are_taken_together_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, localconc_home_directory: Path
) -> None:
    for name in NAMES:
        create_limit(name, 1)
    with concurrency(NAMES):
        pass
    with nothing_goes_by_the_rules(monkeypatch), concurrency(NAMES):
        assert [read_limit(name).active_slots for name in NAMES] == [1, 1, 1]
    assert [read_limit(name).active_slots for name in NAMES] == [0, 0, 0]
    with concurrency("second"):
        with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency(NAMES, timeout_seconds=0):
            pass
        assert [read_limit(name).active_slots for name in NAMES] == [0, 1, 0]
        assert len(read_history("first")) == 2
    check_store(localconc_home_directory)


def test_several_rates_are_taken_together_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        create_limit(name, 3, slot_decay_per_second=0.001)
    rate_limit(NAMES)
    with nothing_goes_by_the_rules(monkeypatch):
        rate_limit(NAMES)
    rate_limit("third")
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit(NAMES, timeout_seconds=0)
    assert [read_limit(name).active_slots for name in NAMES] == [2, 2, 3]
    assert len(read_history("first")) == 2


# ---- what others change ----------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Engine, str], Any]] = {
    "lowered": lambda engine, name: operations.update(engine, name, limit=0),
    "paused": lambda engine, name: operations.pause(engine, name, 3_600),
    "full": lambda engine, name: operations.update(engine, name, active_slots=2),
}


def _call(is_rate: bool) -> None:
    if is_rate:
        rate_limit("L", timeout_seconds=0)
    else:
        with concurrency("L", timeout_seconds=0):
            pass


@pytest.mark.parametrize("is_rate", [False, True], ids=["slots", "rate"])
@pytest.mark.parametrize("change", CHANGES)
def test_nobody_gets_in_by_what_a_process_knew_of_a_limit(elsewhere: Engine, change: str, is_rate: bool) -> None:
    create_limit("L", 2, slot_decay_per_second=1_000.0 if is_rate else 0.0)
    _call(is_rate)
    _call(is_rate)
    if is_rate and change == "full":
        operations.update(elsewhere, "L", decay=1e-6)
    CHANGES[change](elsewhere, "L")
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        _call(is_rate)


@pytest.mark.parametrize("is_rate", [False, True], ids=["slots", "rate"])
def test_a_limit_that_was_switched_off_counts_no_longer(elsewhere: Engine, is_rate: bool) -> None:
    create_limit("L", 2, slot_decay_per_second=0.001 if is_rate else 0.0)
    _call(is_rate)
    before = len(read_history("L"))
    operations.update(elsewhere, "L", active=False)
    for _ in range(3):
        _call(is_rate)
    assert len(read_history("L")) == before


def test_a_rate_whose_decay_ends_is_refused(elsewhere: Engine) -> None:
    create_limit("L", 2, slot_decay_per_second=1.0)
    rate_limit("L")
    operations.update(elsewhere, "L", decay=0.0)
    with pytest.raises(ConcurrencySlotAcquisitionError, match="slot decay"):
        rate_limit("L")


def test_a_new_decay_counts_from_the_next_call_on(elsewhere: Engine) -> None:
    create_limit("L", 2, slot_decay_per_second=1e6)
    rate_limit("L")
    operations.update(elsewhere, "L", decay=1e-6)
    rate_limit("L")
    rate_limit("L")
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit("L", timeout_seconds=0)


@pytest.mark.parametrize("is_rate", [False, True], ids=["slots", "rate"])
def test_a_name_that_another_limit_has_now_is_that_limit(elsewhere: Engine, is_rate: bool) -> None:
    decay = 0.001 if is_rate else 0.0
    create_limit("L", 2, slot_decay_per_second=decay)
    _call(is_rate)
    operations.update(elsewhere, "L", name="old")
    operations.create(elsewhere, "L", 2, active=True, active_slots=0, decay=decay)
    before = len(read_history("old"))
    _call(is_rate)
    assert (len(read_history("old")), len(read_history("L"))) == (before, 1)


def test_a_call_that_disagrees_is_told_even_if_such_calls_are_served_fast(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        rate_limit("api", limit=5, slot_decay_per_second=100.0)
    with caplog.at_level(logging.WARNING, "localconc"):
        rate_limit("api", limit=6, slot_decay_per_second=100.0)
        rate_limit("api", limit=5, slot_decay_per_second=200.0)
    assert "limit=6 in this call is ignored" in caplog.text


# ---- threads of one process ------------------------------------------------------------------------------------------


def test_a_rate_counts_from_the_moment_it_is_taken_however_long_a_thread_waited_for_the_store() -> None:
    create_limit("api", 10, slot_decay_per_second=10.0)
    rate_limit("api")
    rate_limit("api")  # from now on by the fast statement
    store, admitted = registry.current().store, []

    def call() -> None:
        with suppress(AcquireConcurrencySlotTimeoutError):
            rate_limit("api", timeout_seconds=0)
            admitted.append(time.monotonic())

    threads = [threading.Thread(target=call) for _ in range(10)]
    with store.database.lock:
        store.database.ensure_open()  # it checks again only after 10 ms
        for thread in threads:
            thread.start()
        time.sleep(1.0)  # as long as the limit takes to drain: a slow disk, or a long read of another thread
    for thread in threads:
        thread.join(30)
    for _ in range(10):
        call()
    assert len(admitted) <= 10 + 10 * (admitted[-1] - admitted[0]) + 0.01


@pytest.mark.parametrize("names", ["first", NAMES], ids=["one limit", "several limits"])
def test_two_threads_may_release_at_once(names: str | list[str]) -> None:
    for name in NAMES:
        create_limit(name, 1)
    errors: list[BaseException] = []
    both = threading.Barrier(2)

    def release(occupancy: Occupancy) -> None:
        both.wait(30)
        try:
            occupancy.release()
        except BaseException as error:  # the test tells of it
            errors.append(error)

    for _ in range(100):
        held = acquire(names, timeout_seconds=5)
        threads = [threading.Thread(target=release, args=(held,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert errors == []
    assert [read_limit(name).active_slots for name in NAMES] == [0, 0, 0]
