"""What the history of a real store says: who acquired, waited, held and was refused, and the figures of that."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pendulum
import pytest

from localconc import (
    LimitNotFoundError,
    create_limit,
    delete_limit,
    read_history,
    read_limit,
    read_limits,
    read_statistics,
    read_waiters,
    update_limit,
)
from localconc import asyncio as for_tasks
from localconc._engine.store.rows import schema
from localconc._engine.waiting import timing
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from localconc.events import read_events
from localconc.sync import acquire, concurrency, rate_limit
from localconc.testing import VirtualClock
from tests.kit.processes import Worker, crew, wait_until
from tests.kit.systems import needs_watch


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    with crew() as hired:
        yield hired


def labels(**options) -> list[str]:
    return [acquisition.label for acquisition in read_history(**options)]


# ---- acquisitions ----------------------------------------------------------------------------------------------------


def test_an_acquisition_tells_who_it_was_and_how_long_it_held() -> None:
    begun = pendulum.now("UTC")
    with concurrency("db", 2, limit=3, label="nightly import") as occupancy:
        assert occupancy.numbers == (0, 1)
    [found] = read_history("db")
    assert (found.name, found.slots, found.numbers, found.label) == ("db", 2, (0, 1), "nightly import")
    assert (found.pid, found.thread) == (os.getpid(), "MainThread")
    assert Path(sys.executable).name in found.command
    assert found.waited_seconds == 0
    assert found.released_at is not None
    assert begun <= found.acquired_at <= found.released_at <= pendulum.now("UTC")
    assert found.acquired_at.timezone_name == "UTC"
    assert (found.mode, found.ending) == ("concurrency", "released")


def test_what_is_held_now_and_what_rate_limit_took_have_no_end() -> None:
    rate_limit("api", 2, limit=3, slot_decay_per_second=1.0)
    with concurrency("db", limit=1):
        rate, held = read_history()
    assert (rate.name, rate.slots, rate.mode, rate.ending, rate.released_at) == (
        "api",
        2,
        "rate_limit",
        "instant",
        None,
    )
    assert (held.name, held.mode, held.ending, held.released_at) == ("db", "concurrency", "held", None)


def test_one_that_waited_tells_for_how_long(localconc_clock: VirtualClock) -> None:
    create_limit("db", 1)
    occupancy = acquire("db", label="first")

    def wait() -> None:
        with concurrency("db", label="second"):
            pass

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: read_waiters("db"))
    localconc_clock.advance(20)
    occupancy.release()
    thread.join()
    first, second = read_history("db")
    assert (first.label, first.waited_seconds) == ("first", 0)
    assert (second.label, second.waited_seconds) == ("second", pytest.approx(20, abs=0.01))
    assert (second.acquired_at - first.acquired_at).total_seconds() == pytest.approx(20, abs=0.01)


def test_a_call_of_several_names_is_an_acquisition_of_each() -> None:
    create_limit("a", 1)
    create_limit("b", 1)
    with concurrency(["a", "b"], label="both"):
        pass
    assert {(each.name, each.label) for each in read_history()} == {("a", "both"), ("b", "both")}


def test_tasks_are_told_apart_by_their_names() -> None:
    create_limit("db", 2)

    async def work() -> None:
        async with for_tasks.concurrency("db"):
            pass

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name in ("one", "two"):
                group.create_task(work(), name=name)

    asyncio.run(main())
    assert {each.thread for each in read_history("db")} == {"one", "two"}


def test_the_history_names_processes_that_are_gone(workers: list[Worker]) -> None:
    create_limit("db", 1)
    workers.append(Worker("db", label="child"))
    workers[0].wait_inside()
    workers[0].finish()
    [found] = read_history("db")
    assert (found.pid, found.label) == (workers[0].pid, "child")
    assert "python" in found.command


# ---- what is chosen --------------------------------------------------------------------------------------------------


def test_what_had_ended_before_since_is_left_out_and_what_was_held_then_stays(localconc_clock: VirtualClock) -> None:
    create_limit("db", 9)
    rate_limit("api", limit=9, slot_decay_per_second=1.0)
    with concurrency("db", label="ended before"):
        localconc_clock.advance(10)
    still_held = acquire("db", label="held until now")
    then_held = acquire("db", label="held then")
    localconc_clock.advance(10)
    since = read_history(newest=1)[0].acquired_at.add(seconds=5)
    then_held.release()
    with concurrency("db", label="after"):
        pass
    assert labels(since=since) == ["held until now", "held then", "after"]
    assert labels(since=since.in_timezone("Asia/Tokyo")) == ["held until now", "held then", "after"]
    assert labels(since=datetime.fromtimestamp(since.timestamp())) == ["held until now", "held then", "after"]
    assert labels(since=since.add(years=1)) == ["held until now"]
    still_held.release()


def test_the_newest_come_last() -> None:
    create_limit("a", 9)
    create_limit("b", 9)
    first = acquire("a", label="1")  # it is released last
    for number in (2, 3, 4):
        with concurrency("b" if number == 3 else "a", label=str(number)):
            pass
    first.release()
    assert labels() == ["1", "2", "3", "4"]
    assert labels(newest=2) == ["3", "4"]
    assert labels(newest=0) == []
    assert labels(newest=99) == ["1", "2", "3", "4"]
    assert [each.label for each in read_history("a", newest=2)] == ["2", "4"]
    assert [each.label for each in read_history(read_limit("b").id)] == ["3"]


def test_a_deleted_limit_stays_in_the_history_as_a_whole_and_is_not_found_by_name() -> None:
    create_limit("db", 2)
    with concurrency("db"):
        pass
    held = acquire("db")
    delete_limit("db")
    held.release()
    assert [each.name for each in read_history()] == ["db", "db"]
    for read in (read_history, read_statistics):
        with pytest.raises(LimitNotFoundError, match="db"):
            read("db")
    create_limit("db", 5)
    assert read_history("db") == []  # another limit of the same name
    assert read_statistics("db").acquisitions == 0


def test_a_renamed_limit_keeps_its_history() -> None:
    create_limit("old", 2)
    with concurrency("old"):
        pass
    update_limit("old", name="new")
    assert [each.name for each in read_history("new")] == ["new"]


def test_bad_arguments_are_named() -> None:
    create_limit("db", 1)
    with pytest.raises(TypeError, match="since"):
        read_history(since=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="since"):
        read_statistics("db", since="1h")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="newest"):
        read_history(newest=-1)
    with pytest.raises(TypeError, match="newest"):
        read_history(newest=True)


# ---- how it ended ----------------------------------------------------------------------------------------------------


@needs_watch
def test_a_killed_holder_that_was_watched_ended_when_it_died(workers: list[Worker]) -> None:
    create_limit("db", 1)
    workers += [Worker("db", label="victim"), Worker("db")]
    wait_until(lambda: read_waiters("db"))
    inside = next(each for each in workers if each.pipe.poll(0))
    inside.wait_inside()
    asked_at = read_waiters("db")[0].waiting_since.timestamp()
    wait_until(lambda: time.time() - asked_at > 5 * timing.WATCH_AFTER_SECONDS)  # it knows whom to watch
    died_at = time.time()
    inside.kill()
    next(each for each in workers if each is not inside).wait_inside()
    [killed] = [each for each in read_history("db") if each.pid == inside.pid]
    assert killed.ending == "killed"
    assert killed.released_at is not None
    assert killed.released_at.timestamp() == pytest.approx(died_at, abs=1)


@pytest.mark.parametrize("finder", ["a reader", "a caller", "a waiter"])
def test_a_death_that_no_process_watched_is_no_end_at_the_time_when_it_is_found(
    finder: str, workers: list[Worker]
) -> None:
    create_limit("db", 1)
    workers.append(Worker("db"))
    workers[0].wait_inside()
    workers[0].kill()
    if finder == "a reader":
        read_limit("db")
    elif finder == "a caller":
        with concurrency("db", timeout_seconds=0):
            pass
    else:
        with concurrency("db", timeout_seconds=20):
            pass
    dead = read_history("db")[0]
    assert (dead.pid, dead.ending, dead.released_at) == (workers[0].pid, "unseen", None)
    assert dead.acquired_at is not None


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_sum_up_waits_holds_and_use(localconc_clock: VirtualClock) -> None:
    create_limit("db", 2)
    for seconds in (1, 2, 3, 94):
        with concurrency("db"):
            localconc_clock.advance(seconds)
    found = read_statistics("db")
    assert (found.name, found.acquisitions, found.refusals) == ("db", 4, 0)
    assert found.held_seconds is not None
    assert [found.held_seconds.p50, found.held_seconds.p90, found.held_seconds.max] == pytest.approx([2, 94, 94])
    assert found.waited_seconds is not None
    assert found.waited_seconds.max == 0
    assert found.utilization == pytest.approx(0.5)
    assert (found.until - found.since).total_seconds() == pytest.approx(100)


def test_what_is_held_counts_for_its_part_of_the_window(localconc_clock: VirtualClock) -> None:
    create_limit("db", 4)
    with concurrency("db"):
        localconc_clock.advance(50)
    held = acquire("db", 2)
    localconc_clock.advance(50)
    now = read_statistics("db").until
    found = read_statistics("db", since=now.subtract(seconds=25))
    assert (found.acquisitions, found.held_seconds) == (1, None)  # the first had ended before, this one has not
    assert found.utilization == pytest.approx(0.5)
    held.release()
    held_seconds = read_statistics("db", since=now.subtract(seconds=25)).held_seconds
    assert held_seconds is not None
    assert held_seconds.max == pytest.approx(50)


def test_a_limit_with_decay_has_no_utilization() -> None:
    rate_limit("api", limit=3, slot_decay_per_second=1.0)
    found = read_statistics("api")
    assert (found.acquisitions, found.utilization, found.held_seconds) == (1, None, None)


def test_a_limit_that_was_never_used_has_no_figures() -> None:
    create_limit("idle", 3)
    found = read_statistics("idle")
    assert (found.acquisitions, found.refusals) == (0, 0)
    assert (found.waited_seconds, found.held_seconds, found.utilization) == (None, None, None)


def test_a_refused_call_counts_once_however_often_it_retried(localconc_clock: VirtualClock) -> None:
    create_limit("db", 1)
    held = acquire("db")
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        concurrency("db", timeout_seconds=0).__enter__()
    assert read_statistics("db").refusals == 1
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        concurrency("db", timeout_seconds=30).__enter__()
    assert read_statistics("db").refusals == 2
    with pytest.raises(ConcurrencySlotAcquisitionError):
        concurrency("db", max_retries=5).__enter__()
    assert read_statistics("db").refusals == 3
    localconc_clock.advance(10)
    assert read_statistics("db", since=read_statistics("db").until.subtract(seconds=5)).refusals == 0
    held.release()


def test_a_wait_that_was_cancelled_counts_as_one_that_gave_up() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(for_tasks.acquire("db"), 0.05)

    with concurrency("db", limit=1):
        asyncio.run(main())
        assert read_statistics("db").refusals == 1
    assert read_statistics("db").acquisitions == 1


def test_one_that_waited_and_got_in_is_no_refusal(localconc_clock: VirtualClock) -> None:
    rate_limit("api", 3, limit=3, slot_decay_per_second=1.0)
    rate_limit("api", 3, timeout_seconds=30)
    with concurrency("api", 3, max_retries=5):
        pass
    assert read_statistics("api").refusals == 0
    waited = read_statistics("api").waited_seconds
    assert waited is not None
    assert waited.max == pytest.approx(3, abs=0.1)


def test_a_refused_call_of_several_names_counts_for_each() -> None:
    create_limit("a", 1)
    create_limit("b", 1)
    with concurrency("a"), pytest.raises(AcquireConcurrencySlotTimeoutError):
        concurrency(["a", "b"], timeout_seconds=0).__enter__()
    assert [read_statistics(name).refusals for name in ("a", "b")] == [1, 1]


# ---- a full history --------------------------------------------------------------------------------------------------


def fill(home: Path, rows: int) -> float:
    """Write acquisitions of half a second, one after the other, as an owner of before; return when the first began."""
    begin = time.time() - rows * 0.5
    store = sqlite3.connect(home / "localconc.db")
    with store:
        (limit_id,) = store.execute("SELECT id FROM limits WHERE name = 'db'").fetchone()
        store.executemany(
            'INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_wall, released_wall, '
            "waited_seconds) VALUES (?, 1, 1, ?, 1, ?, ?, ?)",
            ((limit_id, n, begin + n * 0.5, begin + n * 0.5 + 0.5, n % 7 / 10) for n in range(rows)),
        )
    store.close()
    return begin


def test_the_window_of_a_full_history_begins_where_it_has_everything(localconc_home_directory: Path) -> None:
    create_limit("db", 1)
    rows = schema.HISTORY_ROWS + 2_000
    begin = fill(localconc_home_directory, rows)
    kept = len(read_history("db"))
    assert schema.HISTORY_ROWS <= kept <= schema.HISTORY_ROWS + schema.HISTORY_SLACK_ROWS
    for since in (None, pendulum.from_timestamp(begin)):
        found = read_statistics("db", since=since)
        oldest_ended = begin + (rows - kept) * 0.5 + 0.5
        assert found.since.timestamp() == pytest.approx(oldest_ended, abs=0.001)
        assert found.utilization == pytest.approx(1, abs=0.05)
    recent = found.until.subtract(seconds=100)
    assert read_statistics("db", since=recent).since == recent


def test_statistics_of_a_full_history_are_read_quickly(localconc_home_directory: Path) -> None:
    create_limit("db", 1)
    fill(localconc_home_directory, schema.HISTORY_ROWS)
    spent = []
    for _ in range(3):
        begun = time.process_time()
        assert read_statistics("db").acquisitions == schema.HISTORY_ROWS
        spent.append(time.process_time() - begun)
    assert min(spent) < 0.150


def test_statistics_of_many_limits_take_no_longer_for_each(localconc_home_directory: Path) -> None:
    create_limit("db", 1)
    fill(localconc_home_directory, schema.HISTORY_ROWS)
    for number in range(20):
        create_limit(f"other {number}", 1)
    begun = time.process_time()
    assert sum(read_statistics(limit.id).acquisitions for limit in read_limits()) == schema.HISTORY_ROWS
    assert time.process_time() - begun < 1.5


def test_all_durations_are_floats() -> None:
    create_limit("db", 2)
    with concurrency("db"):
        pass
    with concurrency("db"):
        waited = read_statistics("db").waited_seconds
        durations = [acquisition.waited_seconds for acquisition in read_history()]
    assert waited is not None
    assert {type(each) for each in [waited.p50, waited.p90, waited.p99, waited.max, *durations]} == {float}


def test_a_moment_that_no_clock_can_show_is_refused_before_the_store_is_touched(localconc_home_directory: Path) -> None:
    for since in (datetime.max, datetime.max.replace(tzinfo=UTC), datetime.min):
        for read in (read_history, read_events, partial(read_statistics, "db")):
            with pytest.raises(ValueError, match=r"since must be a moment .*, but is datetime.datetime"):
                read(since=since)
    assert not (localconc_home_directory / "localconc.db").exists()
