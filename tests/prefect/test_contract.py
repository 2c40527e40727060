"""What holds whoever keeps the limits: each test runs on this machine's engine and on a Prefect server."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from itertools import count
from uuid import uuid4

import pytest

import localconc.asyncio
from localconc import (
    create_limit,
    delete_limit,
    ensure_limit,
    read_limit,
    read_limits,
    update_limit,
)
from localconc.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    LimitExistsError,
    LimitNotFoundError,
)
from localconc.events import Event, subscribe
from localconc.sync import Occupancy, acquire, concurrency, rate_limit
from tests.kit.processes import wait_until


@pytest.fixture(autouse=True)
def _needs_prefect() -> None:
    """This machine's half runs without it."""


@pytest.fixture(params=["machine", "server"], autouse=True)
def keeper(request: pytest.FixtureRequest) -> str:
    """Who keeps the limits in this test."""
    if request.param == "server":
        request.getfixturevalue("on_server")
    return str(request.param)


@pytest.fixture
def events() -> Iterator[list[Event]]:
    """What subscribers in this process are told."""
    seen: list[Event] = []
    unsubscribe = subscribe(seen.append)
    yield seen
    unsubscribe()


# ---- acquiring -------------------------------------------------------------------------------------------------------


def test_what_a_call_holds_is_an_occupancy_whoever_keeps_it(name: str) -> None:
    ensure_limit(name, 1)
    with concurrency(name) as occupancy:
        assert isinstance(occupancy, Occupancy)
        assert occupancy.waited_seconds >= 0


def test_what_is_acquired_is_held_until_its_release_in_any_thread(name: str) -> None:
    ensure_limit(name, 3)
    occupancy = acquire(name, occupy=2)
    assert (read_limit(name).active_slots, occupancy.slots) == (2, 2)
    thread = threading.Thread(target=occupancy.release)
    thread.start()
    thread.join(30)
    assert read_limit(name).active_slots == 0
    occupancy.release()
    assert read_limit(name).active_slots == 0


def test_an_occupancy_that_is_dropped_releases_its_slots(name: str) -> None:
    ensure_limit(name, 1)
    occupancy = acquire(name)
    assert read_limit(name).active_slots == 1
    del occupancy
    wait_until(lambda: read_limit(name).active_slots == 0)


def test_the_occupancy_of_a_block_can_be_released_early(name: str) -> None:
    ensure_limit(name, 1)
    with concurrency(name) as occupancy:
        occupancy.release()
        assert read_limit(name).active_slots == 0
    assert read_limit(name).active_slots == 0


def test_a_task_acquires_and_releases(name: str) -> None:
    ensure_limit(name, 1)

    async def main() -> tuple[int, int]:
        occupancy = await localconc.asyncio.acquire(name)
        held = (await asyncio.to_thread(read_limit, name)).active_slots
        await occupancy.release()
        return held, (await asyncio.to_thread(read_limit, name)).active_slots

    assert asyncio.run(main()) == (1, 0)


def test_a_label_changes_nothing(name: str) -> None:
    ensure_limit(name, 1)
    with concurrency(name, label="nightly import"):
        assert read_limit(name).active_slots == 1


def test_a_block_holds_its_slots_until_its_end(name: str) -> None:
    ensure_limit(name, 3)
    with concurrency(name, occupy=2) as occupancy:
        assert occupancy.slots == 2
        assert [limit.name for limit in occupancy.limits] == [name]
        assert read_limit(name).active_slots == 2
    assert read_limit(name).active_slots == 0


def test_a_decorated_function_holds_slots_while_it_runs(name: str) -> None:
    ensure_limit(name, 1)

    @concurrency(name)
    def held() -> int:
        return read_limit(name).active_slots

    assert held() == 1
    assert read_limit(name).active_slots == 0


def test_a_task_holds_its_slots_until_its_end(name: str) -> None:
    ensure_limit(name, 1)

    async def main() -> int:
        async with localconc.asyncio.concurrency(name):
            return (await asyncio.to_thread(read_limit, name)).active_slots

    assert asyncio.run(main()) == 1
    assert read_limit(name).active_slots == 0


def test_an_exception_passes_and_the_slots_are_released(name: str) -> None:
    ensure_limit(name, 1)
    error = RuntimeError("of the body")
    with pytest.raises(RuntimeError) as raised, concurrency(name):
        raise error
    assert raised.value is error
    assert read_limit(name).active_slots == 0


def test_the_limit_in_the_call_creates_it(name: str) -> None:
    with concurrency(name, limit=3):
        limit = read_limit(name)
    assert (limit.limit, limit.active, limit.active_slots) == (3, True, 1)


def test_what_is_stored_wins_over_the_limit_in_the_call(name: str) -> None:
    ensure_limit(name, 2)
    with concurrency(name, limit=5):
        assert read_limit(name).limit == 2


def test_all_names_are_taken_together(name: str) -> None:
    names = [f"{name}-a", f"{name}-b"]
    with concurrency([*names, names[0]], limit=2):
        assert [read_limit(one).active_slots for one in names] == [1, 1]


def test_if_one_name_is_full_none_is_taken(name: str) -> None:
    full, free = f"{name}-full", f"{name}-free"
    ensure_limit(free, 1)
    with concurrency(full, limit=1):
        with pytest.raises(TimeoutError), concurrency([free, full], timeout_seconds=0):
            pass
        assert read_limit(free).active_slots == 0


def test_a_missing_limit_is_warned_of_once_and_not_enforced(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "localconc"):
        for _ in range(3):
            with concurrency(name) as occupancy:
                assert occupancy.limits == ()
    assert [name in record.getMessage() for record in caplog.records] == [True]


def test_strict_raises_for_a_missing_limit(name: str) -> None:
    there = f"{name}-there"
    ensure_limit(there, 1)
    with pytest.raises(ConcurrencySlotAcquisitionError, match=name), concurrency([there, name], strict=True):
        pass
    assert read_limit(there).active_slots == 0


def test_strict_raises_for_a_limit_that_was_just_disabled(name: str) -> None:
    ensure_limit(name, 1)
    with concurrency(name, strict=True):
        pass
    update_limit(name, active=False)
    with pytest.raises(ConcurrencySlotAcquisitionError, match=name), concurrency(name, strict=True):
        pass


def test_a_disabled_limit_is_not_enforced(name: str) -> None:
    ensure_limit(name, 1, active=False)
    with concurrency(name) as first, concurrency(name):
        assert first.limits == ()


def test_a_limit_is_enforced_as_soon_as_it_is_enabled(name: str) -> None:
    ensure_limit(name, 1, active=False)
    with concurrency(name):
        pass
    update_limit(name, active=True)
    with concurrency(name), pytest.raises(TimeoutError), concurrency(name, timeout_seconds=0):
        pass


def test_more_slots_than_the_limit_has_are_refused_at_once(name: str) -> None:
    ensure_limit(name, 2)
    with pytest.raises(ConcurrencySlotAcquisitionError, match=r"occupy=3 .*has only 2"), concurrency(name, occupy=3):
        pass


def test_nothing_is_asked_for_no_names() -> None:
    with concurrency([]) as occupancy:
        assert occupancy.limits == ()


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_a_waiter_gets_the_slots_that_are_released(name: str) -> None:
    ensure_limit(name, 1)
    inside = threading.Event()

    def wait() -> None:
        with concurrency(name):
            inside.set()

    with concurrency(name):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not inside.wait(0.3)
    assert inside.wait(10)
    thread.join()


def test_the_time_is_up_when_the_time_out_says(name: str) -> None:
    ensure_limit(name, 1)
    with concurrency(name):
        begun = time.monotonic()
        message = r"timed out after 0.7 second\(s\)"
        with pytest.raises(AcquireConcurrencySlotTimeoutError, match=message), concurrency(name, timeout_seconds=0.7):
            pass
        assert 0.7 <= time.monotonic() - begun < 1.2


def test_a_time_out_of_0_tries_once(name: str) -> None:
    ensure_limit(name, 1)
    tries_once = concurrency(name, timeout_seconds=0)
    with concurrency(name, timeout_seconds=0), pytest.raises(AcquireConcurrencySlotTimeoutError), tries_once:
        pass


def test_a_task_that_waits_times_out(name: str) -> None:
    ensure_limit(name, 1)

    async def main() -> None:
        async with localconc.asyncio.concurrency(name):
            with pytest.raises(AcquireConcurrencySlotTimeoutError):
                async with localconc.asyncio.concurrency(name, timeout_seconds=0.3):
                    pass

    asyncio.run(main())


def test_without_retries_a_call_tries_once(name: str) -> None:
    ensure_limit(name, 1)
    tries_once = concurrency(name, max_retries=0)
    with concurrency(name), pytest.raises(ConcurrencySlotAcquisitionError, match="no retries"), tries_once:
        pass


def test_a_limit_of_0_makes_requests_wait_until_it_is_raised(name: str) -> None:
    ensure_limit(name, 0)
    inside = threading.Event()

    def wait() -> None:
        with concurrency(name):
            inside.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not inside.wait(0.3)
    update_limit(name, limit=1)
    assert inside.wait(10)
    thread.join()


def test_a_waiter_is_refused_when_the_limit_becomes_too_small(name: str) -> None:
    ensure_limit(name, 2)
    errors: list[Exception] = []

    def wait() -> None:
        try:
            with concurrency(name, occupy=2):
                pass
        except ConcurrencySlotAcquisitionError as error:
            errors.append(error)

    with concurrency(name):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        update_limit(name, limit=1)
        thread.join(15)
    assert len(errors) == 1


def test_a_cancelled_task_leaves_nothing_behind(name: str) -> None:
    ensure_limit(name, 1)

    async def wait() -> None:
        async with localconc.asyncio.concurrency(name):
            pass

    async def main() -> None:
        async with localconc.asyncio.concurrency(name):
            task = asyncio.create_task(wait())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert read_limit(name).active_slots == 0


def test_a_crowd_never_exceeds_the_limit(name: str) -> None:
    ensure_limit(name, 2)
    lock, inside, peaks = threading.Lock(), [0], [0]
    arrivals, pair = count(), threading.Barrier(2)

    def work() -> None:
        for _ in range(3):
            with concurrency(name):
                with lock:
                    inside[0] += 1
                    peaks[0] = max(peaks[0], inside[0])
                    is_early = next(arrivals) < 2
                if is_early:
                    pair.wait(60)  # the first two are inside together, however slow the server is
                with lock:
                    inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert peaks == [2]
    wait_until(lambda: read_limit(name).active_slots == 0)


# ---- rates -----------------------------------------------------------------------------------------------------------


def test_a_rate_limit_admits_a_burst_and_then_its_rate(name: str) -> None:
    begun = time.monotonic()
    for _ in range(6):
        rate_limit(name, limit=3, slot_decay_per_second=10)
    assert time.monotonic() - begun >= 0.2


def test_a_rate_limit_needs_decay_on_every_limit(name: str) -> None:
    ensure_limit(f"{name}-a", 1)
    ensure_limit(f"{name}-b", 1)
    with pytest.raises(ConcurrencySlotAcquisitionError, match=f"{name}-a.*{name}-b"):
        rate_limit([f"{name}-a", f"{name}-b"])


# ---- abandoned blocks ------------------------------------------------------------------------------------------------


def test_a_block_that_is_dropped_releases_its_slots(name: str) -> None:
    ensure_limit(name, 1)
    block = concurrency(name)
    block.__enter__()
    del block
    wait_until(lambda: read_limit(name).active_slots == 0)


# ---- events ----------------------------------------------------------------------------------------------------------


def test_subscribers_are_told_of_acquisition_and_release(name: str, events: list[Event]) -> None:
    limit = ensure_limit(name, 3)
    with concurrency(name, occupy=2):
        pass
    acquired, released = events
    assert acquired.event == "localconc.concurrency-limit.acquired"
    assert acquired.resource == {
        "localconc.resource.id": f"localconc.concurrency-limit.{limit.id}",
        "localconc.resource.name": name,
        "slots-acquired": "2",
        "limit": "3",
    }
    assert released.event == "localconc.concurrency-limit.released"
    assert released.follows == acquired.id


def test_events_of_one_call_name_each_other(name: str, events: list[Event]) -> None:
    ids = {f"localconc.concurrency-limit.{ensure_limit(f'{name}-{n}', 1).id}" for n in "ab"}
    with concurrency([f"{name}-a", f"{name}-b"]):
        pass
    for event in events:
        others = {related["localconc.resource.id"] for related in event.related}
        assert others == ids - {event.resource["localconc.resource.id"]}


def test_a_limit_that_is_not_enforced_emits_nothing(name: str, events: list[Event]) -> None:
    ensure_limit(name, 1, active=False)
    with concurrency(name):
        pass
    assert events == []


# ---- administration --------------------------------------------------------------------------------------------------


def test_a_created_limit_is_read_by_name_id_and_text_of_the_id(name: str) -> None:
    limit = create_limit(name, 4, active=False, slot_decay_per_second=0.5)
    assert (limit.name, limit.limit, limit.active, limit.slot_decay_per_second) == (name, 4, False, 0.5)
    assert read_limit(name) == read_limit(limit.id) == read_limit(str(limit.id)) == limit


def test_a_limit_can_be_created_once(name: str) -> None:
    create_limit(name, 4)
    with pytest.raises(LimitExistsError, match="limit=4"):
        create_limit(name, 5)


def test_ensure_changes_what_is_there(name: str) -> None:
    limit = create_limit(name, 4)
    assert ensure_limit(name, 4).id == limit.id
    assert ensure_limit(name, 2, slot_decay_per_second=1.5).limit == 2
    assert read_limit(name).slot_decay_per_second == 1.5


def test_a_limit_is_renamed(name: str) -> None:
    limit = create_limit(name, 1)
    create_limit(f"{name}-taken", 1)
    with pytest.raises(LimitExistsError, match="renamed"):
        update_limit(name, name=f"{name}-taken")
    assert update_limit(name, name=f"{name}-new").id == limit.id
    with pytest.raises(LimitNotFoundError):
        read_limit(name)


def test_a_deleted_limit_is_gone(name: str) -> None:
    create_limit(name, 1)
    delete_limit(name)
    for use in (read_limit, delete_limit, lambda name: update_limit(name, limit=1)):
        with pytest.raises(LimitNotFoundError, match=name):
            use(name)


def test_a_limit_that_is_deleted_while_it_is_known_is_created_anew(name: str) -> None:
    with concurrency(name, limit=2):
        pass
    delete_limit(name)
    with concurrency(name, limit=3):
        assert read_limit(name).limit == 3


def test_limits_are_listed_by_name(name: str) -> None:
    for letter in "cab":
        create_limit(f"{name}-{letter}", 1)
    listed = [limit.name for limit in read_limits() if limit.name.startswith(name)]
    assert listed == [f"{name}-a", f"{name}-b", f"{name}-c"]


@pytest.mark.parametrize(
    "text",
    ["a b", "größe", "q?x", "h#x", "..", ".", "x.y", "tab\tx", "new\nline", "a\\b", "{b}", "\x7f", "日本", "+ ;"],
)
def test_any_name_works_in_every_way(text: str) -> None:
    if len(text) > 2:
        text = f"{text}{uuid4()}"
    ensure_limit(text, 2)
    with concurrency(text):
        assert read_limit(text).active_slots == 1
    assert update_limit(text, limit=3).limit == 3
    delete_limit(text)


def test_a_name_that_looks_like_an_id_is_a_name() -> None:
    text = str(uuid4())
    limit = create_limit(text, 1)
    assert read_limit(text).id == limit.id
    with concurrency(text):
        assert read_limit(text).active_slots == 1


def test_an_operator_frees_slots_that_nobody_releases(name: str) -> None:
    create_limit(name, 2, active_slots=2)
    with pytest.raises(TimeoutError), concurrency(name, timeout_seconds=0):
        pass
    update_limit(name, active_slots=0)
    with concurrency(name, timeout_seconds=0):
        pass
