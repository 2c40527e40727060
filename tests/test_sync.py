"""What a call of `concurrency` and `rate_limit` does, case by case."""

from __future__ import annotations

import functools
import logging
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

import localconc
from localconc import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    create_limit,
    delete_limit,
    read_holders,
    read_limit,
    read_limits,
    read_waiters,
    update_limit,
)
from localconc.sync import concurrency, rate_limit
from tests.kit.invariants import check_store
from tests.kit.processes import Worker, crew, wait_until


def test_a_block_holds_its_slots_while_it_runs_and_not_after() -> None:
    create_limit("db", 3)
    with concurrency("db", occupy=2) as occupancy:
        assert read_limit("db").active_slots == 2
        assert occupancy.slots == 2
        assert [limit.name for limit in occupancy.limits] == ["db"]
        assert occupancy.waited_seconds < 5
        assert occupancy.acquired_at.timezone_name == "UTC"
    assert read_limit("db").active_slots == 0


@pytest.mark.parametrize("nothing", [None, [], (), set(), iter(())])
def test_without_names_the_body_runs_and_the_store_is_not_touched(nothing: Any, localconc_home_directory: Path) -> None:
    with concurrency(nothing) as occupancy:
        assert occupancy.limits == ()
    rate_limit(nothing)
    assert not localconc_home_directory.exists()


def test_any_iterable_of_names_is_taken_together_and_each_counts_once() -> None:
    for name in ("a", "b"):
        create_limit(name, 1)
    for names in (["a", "b", "a"], ("a", "b"), {"a", "b"}, (name for name in "ab")):
        with concurrency(names):
            assert {limit.name: limit.active_slots for limit in read_limits()} == {"a": 1, "b": 1}


def test_all_or_nothing_a_full_limit_leaves_the_others_alone() -> None:
    create_limit("free", 1)
    create_limit("full", 1)
    with concurrency("full"):
        with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency(["free", "full"], timeout_seconds=0):
            pass
        assert read_limit("free").active_slots == 0


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"names": ""}, ValueError, "names"),
        ({"names": ["ok", ""]}, ValueError, "names"),
        ({"names": "a/b"}, ValueError, "'/'"),
        ({"names": "50%"}, ValueError, "'%'"),
        ({"names": "a&b"}, ValueError, "'&'"),
        ({"names": "a>b"}, ValueError, "'>'"),
        ({"names": "a<b"}, ValueError, "'<'"),
        ({"names": "a\0b"}, ValueError, "names"),
        ({"names": "\ud800"}, ValueError, "names"),
        ({"names": 7}, TypeError, "7"),
        ({"names": b"db"}, TypeError, "names"),
        ({"names": ["db", 7]}, TypeError, "7"),
        ({"names": "db", "occupy": 0}, ValueError, "occupy"),
        ({"names": "db", "occupy": -3}, ValueError, "-3"),
        ({"names": "db", "occupy": 1.0}, TypeError, "occupy"),
        ({"names": "db", "occupy": True}, TypeError, "occupy"),
        ({"names": "db", "occupy": "1"}, TypeError, "occupy"),
        ({"names": "db", "occupy": 10**30}, ValueError, "occupy"),
        ({"names": "db", "timeout_seconds": -1}, ValueError, "timeout_seconds"),
        ({"names": "db", "timeout_seconds": math.nan}, ValueError, "nan"),
        ({"names": "db", "timeout_seconds": "1"}, TypeError, "timeout_seconds"),
        ({"names": "db", "limit": -1}, ValueError, "limit"),
        ({"names": "db", "limit": 1.5}, TypeError, "limit"),
        ({"names": "db", "slot_decay_per_second": -1}, ValueError, "slot_decay_per_second"),
        ({"names": "db", "slot_decay_per_second": math.inf}, ValueError, "slot_decay_per_second"),
    ],
)
def test_a_bad_argument_is_named_before_the_store_is_touched(
    arguments: dict[str, Any], error: type[Exception], said: str, localconc_home_directory: Path
) -> None:
    with pytest.raises(error, match=said):
        concurrency(**arguments)
    with pytest.raises(error, match=said):
        rate_limit(**arguments)
    assert not localconc_home_directory.exists()


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_max_retries_are_named(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_retries"):
        concurrency("db", max_retries=value)


def test_a_missing_limit_becomes_a_placeholder_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="localconc"):
        for _ in range(3):
            with concurrency("new"):
                pass
    limit = read_limit("new")
    assert (limit.limit, limit.active, limit.active_slots) == (1, False, 0)
    assert [record.name for record in caplog.records] == ["localconc"]
    assert "'new'" in caplog.text
    assert "ensure_limit" in caplog.text


def test_a_limit_given_in_the_call_is_created_or_made_of_a_placeholder() -> None:
    with concurrency("placeholder"):
        pass
    for name in ("missing", "placeholder"):
        with concurrency(name, limit=2):
            assert (read_limit(name).limit, read_limit(name).active, read_limit(name).active_slots) == (2, True, 1)


def test_what_is_stored_wins_over_the_call_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with concurrency("db", limit=5), caplog.at_level(logging.WARNING, logger="localconc"):
        for _ in range(3):
            with concurrency("db", limit=9):
                assert read_limit("db").limit == 5
    assert len(caplog.records) == 1
    assert "'db'" in caplog.text


def test_what_an_operator_declared_wins_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    create_limit("db", 5)
    with caplog.at_level(logging.WARNING, logger="localconc"), concurrency("db", limit=9):
        assert read_limit("db").limit == 5
    assert caplog.records == []


def test_a_disabled_limit_stays_disabled_whatever_a_call_says() -> None:
    create_limit("db", 1, active=False)
    with concurrency("db", limit=1), concurrency("db", limit=1):
        assert read_limit("db").active_slots == 0


@pytest.mark.parametrize("limit", [None, 3])
def test_nothing_is_created_where_that_is_not_wanted(limit: int | None) -> None:
    with concurrency("missing", create_if_missing=False, limit=limit):
        assert read_limits() == []
    with (
        pytest.raises(ConcurrencySlotAcquisitionError, match="missing"),
        concurrency("missing", create_if_missing=False, limit=limit, strict=True),
    ):
        pass
    assert read_limits() == []


def test_strict_means_enforced_or_an_error() -> None:
    create_limit("idle", 1, active=False)
    for name in ("idle", "missing"):
        with pytest.raises(ConcurrencySlotAcquisitionError, match=name), concurrency(name, strict=True):
            pass
    with concurrency("made", limit=1, strict=True):
        assert read_limit("made").active_slots == 1


def test_more_than_the_limit_is_refused_at_once() -> None:
    create_limit("db", 2)
    with pytest.raises(ConcurrencySlotAcquisitionError, match=r"'db' has only 2"), concurrency("db", occupy=3):
        pass


def test_rate_limit_lists_every_limit_without_decay() -> None:
    create_limit("steady", 2)
    create_limit("firm", 2)
    create_limit("draining", 2, slot_decay_per_second=1.0)
    with pytest.raises(ConcurrencySlotAcquisitionError) as caught:
        rate_limit(["steady", "draining", "firm"])
    assert "'steady'" in str(caught.value)
    assert "'firm'" in str(caught.value)
    assert "'draining'" not in str(caught.value)
    assert read_limit("draining").active_slots == 0


def test_a_paused_limit_lets_nobody_in_until_it_is_raised() -> None:
    create_limit("db", 0)
    with pytest.raises(AcquireConcurrencySlotTimeoutError, match="limit=0"), concurrency("db", timeout_seconds=0):
        pass
    entered = threading.Event()
    thread = threading.Thread(target=_enter, args=("db", entered))
    thread.start()
    wait_until(lambda: read_waiters("db"))
    assert not entered.is_set()
    update_limit("db", limit=1)
    assert entered.wait(10)
    thread.join(10)


def _enter(name: str, entered: threading.Event, **options: Any) -> None:
    with concurrency(name, **options):
        entered.set()


def test_a_timeout_says_what_it_waited_for() -> None:
    create_limit("db", 1)
    with (
        concurrency("db"),
        pytest.raises(AcquireConcurrencySlotTimeoutError) as caught,
        concurrency("db", timeout_seconds=0.05),
    ):
        pass
    text = str(caught.value)
    assert text.startswith("Attempt to acquire concurrency slots timed out after 0.05 second(s)")
    assert "'db': 1 of 1 in use, held by this very thread or task (MainThread)" in text
    assert "nobody ahead" in text
    assert isinstance(caught.value, TimeoutError)
    assert read_waiters() == []


def test_no_retries_try_once_and_count_as_refused() -> None:
    create_limit("db", 1)
    with concurrency("db"):
        with pytest.raises(ConcurrencySlotAcquisitionError, match="retries"), concurrency("db", max_retries=0):
            pass
        assert read_limit("db").denied_slots == 1
    assert read_waiters() == []


def test_a_retry_comes_after_the_estimated_wait_and_a_slot_in_between_is_free_of_charge() -> None:
    create_limit("db", 1, slot_decay_per_second=4.0, active_slots=1)
    with concurrency("db", max_retries=1) as occupancy:
        assert 0.1 <= occupancy.waited_seconds < 5
    create_limit("long", 1, active_slots=1)
    thread_done = threading.Event()
    thread = threading.Thread(target=_enter, args=("long", thread_done), kwargs={"max_retries": 1})
    thread.start()
    wait_until(lambda: read_waiters("long"))
    update_limit("long", active_slots=0)
    assert thread_done.wait(1.5)  # the estimate was 2 seconds
    thread.join(10)


def test_an_exception_passes_unchanged_and_gives_the_slots_back() -> None:
    create_limit("db", 1)
    for error in (ValueError("mine"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as caught, concurrency("db"):
            raise error
        assert caught.value is error
        assert read_limit("db").active_slots == 0


def test_a_decorated_function_acquires_at_each_call_and_keeps_its_name() -> None:
    create_limit("db", 1)
    held = []

    @concurrency("db")
    def query(number: int) -> int:
        """Ask."""
        held.append(read_limit("db").active_slots)
        return number + 1

    assert [query(1), query(2)] == [2, 3]
    assert held == [1, 1]
    assert (query.__name__, query.__doc__) == ("query", "Ask.")
    assert read_limit("db").active_slots == 0


def test_a_coroutine_function_is_sent_to_the_other_face() -> None:
    async def query() -> None: ...

    with pytest.raises(TypeError, match=r"localconc\.asyncio"):
        concurrency("db")(query)


def test_one_object_is_entered_once_at_a_time_and_can_be_used_again() -> None:
    create_limit("db", 2)
    limited = concurrency("db")
    with limited, pytest.raises(RuntimeError, match="already entered"):
        limited.__enter__()
    with limited:
        assert read_limit("db").active_slots == 1
    assert read_limit("db").active_slots == 0


def test_holders_and_waiters_say_who_they_are() -> None:
    create_limit("db", 1)
    entered = threading.Event()
    with concurrency("db"):
        thread = threading.Thread(target=_enter, args=(["db", "other"], entered), name="the-waiter")
        thread.start()
        wait_until(lambda: read_waiters("db"))
        (holder,) = read_holders("db")
        (waiter,) = read_waiters("db")
    thread.join(10)
    assert (holder.name, holder.slots, holder.thread) == ("db", 1, "MainThread")
    assert (waiter.names, waiter.slots, waiter.thread, waiter.position) == (("db", "other"), 1, "the-waiter", 1)
    assert holder.pid == waiter.pid
    assert holder.command == waiter.command
    assert read_holders() == read_waiters() == []


def test_slots_of_rate_limit_are_active_but_held_by_nobody() -> None:
    rate_limit("api", limit=5, slot_decay_per_second=0.001)
    assert read_limit("api").active_slots == 1
    assert read_holders("api") == []


def test_threads_are_served_in_the_order_they_came() -> None:
    create_limit("db", 2)
    order: list[int] = []
    threads = []

    def work(number: int, occupy: int) -> None:
        with concurrency("db", occupy=occupy):
            order.append(number)

    with concurrency("db", occupy=2):
        for number in range(8):
            threads.append(threading.Thread(target=work, args=(number, 2 if number == 3 else 1)))
            threads[-1].start()
            wait_until(lambda number=number: len(read_waiters("db")) == number + 1)
    for thread in threads:
        thread.join(10)
    assert order.index(3) >= 3
    assert sorted(order[:3]) == [0, 1, 2]
    assert order[3] == 3


def test_a_small_request_does_not_pass_a_big_one_that_came_first() -> None:
    create_limit("db", 5)
    big_entered = threading.Event()
    with concurrency("db"):
        big = threading.Thread(target=_enter, args=("db", big_entered), kwargs={"occupy": 5})
        big.start()
        wait_until(lambda: read_waiters("db"))
        with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency("db", timeout_seconds=0):
            pass
    assert big_entered.wait(10)
    big.join(10)


def test_a_request_over_two_limits_waits_in_both_and_takes_nothing_meanwhile() -> None:
    create_limit("a", 1)
    create_limit("b", 1)
    entered = threading.Event()
    with concurrency("b"):
        thread = threading.Thread(target=_enter, args=(["a", "b"], entered))
        thread.start()
        wait_until(lambda: read_waiters("a"))
        assert read_limit("a").active_slots == 0
        with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency("a", timeout_seconds=0):
            pass
    assert entered.wait(10)
    thread.join(10)


@pytest.mark.parametrize("change", ["delete", "rename", "disable"])
def test_those_who_wait_are_answered_as_if_they_had_just_called(change: str) -> None:
    create_limit("db", 1, active_slots=1)
    entered = threading.Event()
    thread = threading.Thread(target=_enter, args=("db", entered))
    thread.start()
    wait_until(lambda: read_waiters("db"))
    if change == "delete":
        delete_limit("db")
    elif change == "rename":
        update_limit("db", name="other")
    else:
        update_limit("db", active=False)
    assert entered.wait(5)
    thread.join(10)


def test_a_waiter_that_has_become_too_big_is_refused_and_a_strict_one_too() -> None:
    create_limit("db", 3, active_slots=3)
    errors: list[Exception] = []

    def ask(**options: Any) -> None:
        try:
            with concurrency("db", **options):
                pass
        except ConcurrencySlotAcquisitionError as error:
            errors.append(error)

    big = threading.Thread(target=ask, kwargs={"occupy": 3})
    strict = threading.Thread(target=ask, kwargs={"strict": True})
    for number, thread in enumerate((big, strict), 1):
        thread.start()
        wait_until(lambda number=number: len(read_waiters("db")) == number)
    update_limit("db", limit=2)
    big.join(10)
    assert len(errors) == 1
    assert "occupy=3" in str(errors[0])
    update_limit("db", active=False)
    strict.join(10)
    assert len(errors) == 2
    assert "strict" in str(errors[1])


def test_lowering_a_limit_takes_nothing_away_and_admits_nobody_until_enough_came_back() -> None:
    create_limit("db", 3)
    with concurrency("db", occupy=2):
        update_limit("db", limit=1)
        assert read_limit("db").active_slots == 2
        with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency("db", timeout_seconds=0):
            pass
    with concurrency("db", timeout_seconds=0):
        pass


def test_leaving_after_the_operator_forgot_the_holder_does_nothing(localconc_home_directory: Path) -> None:
    create_limit("db", 1)
    with concurrency("db"):
        update_limit("db", active_slots=0)
        with concurrency("db", timeout_seconds=0):
            assert read_limit("db").active_slots == 1
        update_limit("db", active_slots=1)
    assert read_limit("db").active_slots == 1
    assert read_holders("db") == []
    check_store(localconc_home_directory)


def test_limits_can_be_switched_off_for_a_process(
    monkeypatch: pytest.MonkeyPatch, localconc_home_directory: Path
) -> None:
    monkeypatch.setenv("LOCALCONC_DISABLED", "1")
    with concurrency("db", limit=1), concurrency("db", limit=1):
        rate_limit("api")
    with pytest.raises(ValueError, match="occupy"):
        concurrency("db", occupy=0)
    assert not localconc_home_directory.exists()


def test_the_home_is_read_at_each_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_limit("here", 1)
    monkeypatch.setenv("LOCALCONC_HOME", str(tmp_path / "there"))
    assert read_limits() == []
    assert localconc.home() == tmp_path / "there"


def test_errors_are_importable_from_every_face() -> None:
    import localconc.errors
    import localconc.sync

    for name in localconc.errors.__all__:
        assert getattr(localconc, name) is getattr(localconc.sync, name) is getattr(localconc.errors, name)


@pytest.mark.parametrize("change", ["enable", "enable again", "create", "rename"])
def test_a_limit_that_begins_to_count_does_so_for_those_who_named_it_and_wait(change: str) -> None:
    create_limit("x", 1)
    if change in {"enable", "enable again"}:
        create_limit("y", 1, active=change == "enable again", active_slots=1)
    elif change == "rename":
        create_limit("z", 1, active_slots=1)
    entered = threading.Event()
    with concurrency("x"):
        thread = threading.Thread(target=_enter, args=(["x", "y"], entered))
        thread.start()
        wait_until(lambda: read_waiters("x"))
        if change == "enable again":
            update_limit("y", active=False)
        if change in {"enable", "enable again"}:
            update_limit("y", active=True)
        elif change == "create":
            create_limit("y", 1, active_slots=1)
        else:
            delete_limit("y")
            update_limit("z", name="y")
        assert [waiter.names for waiter in read_waiters("y")] == [("x", "y")]
    assert not entered.wait(0.1)
    update_limit("y", active_slots=0)
    assert entered.wait(10)
    thread.join(10)


def test_one_object_is_entered_by_one_thread_at_a_time_even_while_that_waits() -> None:
    create_limit("db", 1, active_slots=1)
    block = concurrency("db")
    thread = threading.Thread(target=_enter_block, args=(block,))
    thread.start()
    wait_until(lambda: read_waiters("db"))
    with pytest.raises(RuntimeError, match="already entered"):
        block.__enter__()
    update_limit("db", active_slots=0)
    thread.join(10)
    assert read_holders("db") == []


def _enter_block(block: concurrency) -> None:
    with block:
        pass


def test_more_than_any_limit_can_have_is_refused_where_it_is_enforced_and_passes_where_it_is_not() -> None:
    create_limit("db", 1)
    create_limit("idle", 1, active=False)
    with pytest.raises(ConcurrencySlotAcquisitionError, match="occupy=4294967296"):
        concurrency("db", 2**32).__enter__()
    with concurrency("idle", 2**32):
        pass


def test_a_refused_attempt_that_finds_a_dead_holder_counts_once() -> None:
    create_limit("db", 2, active_slots=1)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        workers[0].kill()
    with pytest.raises(TimeoutError):
        concurrency("db", 2, timeout_seconds=0).__enter__()
    assert read_limit("db").denied_slots == 2


def test_a_partial_of_a_coroutine_function_is_sent_to_the_other_face_too() -> None:
    async def work(number: int) -> int:
        return number

    class Worker:
        async def __call__(self) -> None: ...

    for asynchronous in (functools.partial(work, 1), Worker()):
        with pytest.raises(TypeError, match=r"localconc\.asyncio"):
            concurrency("db")(asynchronous)


def test_a_block_that_was_used_can_be_pickled_as_before() -> None:
    block = concurrency("db", limit=1)
    with block:
        pass

    with pickle.loads(pickle.dumps(block)) as occupancy:
        assert occupancy.slots == 1
        assert read_limit("db").active_slots == 1
