"""What subscribers are told, on this machine and on a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import localconc.asyncio
from localconc import ensure_limit
from localconc.events import Event, subscribe
from localconc.sync import concurrency, rate_limit


@pytest.fixture
def events() -> Iterator[list[Event]]:
    """What subscribers in this process are told."""
    seen: list[Event] = []
    unsubscribe = subscribe(seen.append)
    yield seen
    unsubscribe()


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


def test_a_rate_limit_emits_that_it_was_acquired_and_nothing_more(name: str, events: list[Event]) -> None:
    rate_limit(name, limit=1, slot_decay_per_second=10)
    assert [event.event for event in events] == ["localconc.concurrency-limit.acquired"]


def test_tasks_emit_the_same(name: str, events: list[Event]) -> None:
    async def main() -> None:
        async with localconc.asyncio.concurrency(name, limit=1):
            pass

    asyncio.run(main())
    acquired, released = events
    assert released.follows == acquired.id


def test_a_subscriber_that_raises_harms_no_call(name: str, events: list[Event]) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError(event.event)

    unsubscribe = subscribe(fail)
    with concurrency(name, limit=1):
        pass
    unsubscribe()
    assert len(events) == 2
