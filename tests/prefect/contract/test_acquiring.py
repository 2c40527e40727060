"""Acquiring and releasing, in threads and tasks, on this machine and on a server."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

import localconc.asyncio
from localconc import ensure_limit, read_limit, read_limits, update_limit
from localconc.errors import ConcurrencySlotAcquisitionError
from localconc.sync import Occupancy, acquire, concurrency
from tests.kit.processes import wait_until


def test_a_block_yields_an_occupancy(name: str) -> None:
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


def test_a_decorated_coroutine_function_holds_slots_while_it_runs(name: str) -> None:
    ensure_limit(name, 1)

    @localconc.asyncio.concurrency(name)
    async def held() -> int:
        return (await asyncio.to_thread(read_limit, name)).active_slots

    assert asyncio.run(held()) == 1
    assert read_limit(name).active_slots == 0


def test_a_task_that_is_cancelled_in_its_block_releases_its_slots(name: str) -> None:
    ensure_limit(name, 1)

    async def hold(inside: asyncio.Event) -> None:
        async with localconc.asyncio.concurrency(name):
            inside.set()
            await asyncio.Event().wait()

    async def main() -> None:
        inside = asyncio.Event()
        task = asyncio.create_task(hold(inside))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: read_limit(name).active_slots == 0)


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


def test_nothing_is_created_if_that_is_not_wanted(name: str) -> None:
    with concurrency(name, limit=3, create_if_missing=False) as occupancy:
        assert occupancy.limits == ()
    assert name not in [limit.name for limit in read_limits() if limit.active]


def test_a_placeholder_or_a_missing_limit_becomes_the_one_of_the_call(name: str) -> None:
    with concurrency(name):
        pass
    with concurrency(name, limit=2, slot_decay_per_second=0.5):
        limit = read_limit(name)
    assert (limit.limit, limit.active, limit.slot_decay_per_second) == (2, True, 0.5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"names": "a/b"}, ValueError),
        ({"names": ""}, ValueError),
        ({"names": ["a", 1]}, TypeError),
        ({"names": "a", "occupy": 0}, ValueError),
        ({"names": "a", "timeout_seconds": float("nan")}, ValueError),
        ({"names": "a", "max_retries": -1}, ValueError),
        ({"names": "a", "label": "x" * 201}, ValueError),
        ({"names": "a", "limit": 1, "slot_decay_per_second": -1}, ValueError),
    ],
)
def test_a_bad_argument_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error), concurrency(**arguments):
        pass


def test_the_environment_makes_calls_strict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCONC_STRICT", "1")
    with pytest.raises(ConcurrencySlotAcquisitionError, match=name), concurrency(name):
        pass


def test_the_environment_switches_limits_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_limit(name, 1)
    monkeypatch.setenv("LOCALCONC_DISABLED", "1")
    with concurrency(name) as first, concurrency(name):
        assert first.limits == ()


def test_strict_raises_for_a_disabled_limit_whatever_the_call_says(name: str) -> None:
    ensure_limit(name, 1, active=False)
    with pytest.raises(ConcurrencySlotAcquisitionError, match=name), concurrency(name, limit=5, strict=True):
        pass
    assert (read_limit(name).limit, read_limit(name).active) == (1, False)


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


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_is_asked_for_no_names(nothing: Any) -> None:
    with concurrency(nothing) as occupancy:
        assert occupancy.limits == ()


def test_a_block_that_is_dropped_releases_its_slots(name: str) -> None:
    ensure_limit(name, 1)
    block = concurrency(name)
    block.__enter__()
    del block
    wait_until(lambda: read_limit(name).active_slots == 0)
