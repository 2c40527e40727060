"""What happened: told to subscribers, and kept for all processes."""

from __future__ import annotations

import logging
import threading

import pendulum
import pytest

from localconc import create_limit, delete_limit, read_limit, update_limit
from localconc._engine.store.rows import schema
from localconc.events import Event, read_events, subscribe
from localconc.sync import concurrency, rate_limit

ACQUIRED = "localconc.concurrency-limit.acquired"
RELEASED = "localconc.concurrency-limit.released"


def test_an_acquisition_and_its_release_are_told_in_the_shape_of_prefect() -> None:
    create_limit("a", 3)
    create_limit("b", 5)
    told: list[Event] = []
    unsubscribe = subscribe(told.append)
    with concurrency(["a", "b"], occupy=2):
        assert [event.event for event in told] == [ACQUIRED, ACQUIRED]
    unsubscribe()
    with concurrency("a"):
        pass
    assert [event.event for event in told] == [ACQUIRED, ACQUIRED, RELEASED, RELEASED]
    first, second, third, _ = told
    identities = {name: f"localconc.concurrency-limit.{read_limit(name).id}" for name in ("a", "b")}
    assert first.resource == {
        "localconc.resource.id": identities["a"],
        "localconc.resource.name": "a",
        "slots-acquired": "2",
        "limit": "3",
    }
    assert [related["localconc.resource.id"] for related in first.related] == [identities["b"]]
    assert [related["localconc.resource.id"] for related in second.related] == [identities["a"]]
    assert third.follows == first.id
    assert first.follows is None
    assert isinstance(first.occurred, pendulum.DateTime)
    assert len({event.id for event in told}) == 4


def test_what_is_read_is_what_was_told() -> None:
    create_limit("db", 2)
    told: list[Event] = []
    unsubscribe = subscribe(told.append)
    for _ in range(40):  # more than one batch
        with concurrency("db"):
            pass
    unsubscribe()
    read = read_events("db")
    assert [(event.event, event.id, event.follows) for event in read] == [
        (event.event, event.id, event.follows) for event in told
    ]


def test_rate_limit_is_told_once_and_what_is_not_enforced_not_at_all() -> None:
    told: list[Event] = []
    unsubscribe = subscribe(told.append)
    rate_limit("api", limit=3, slot_decay_per_second=1.0)
    with concurrency("placeholder"):
        pass
    unsubscribe()
    assert [event.event for event in told] == [ACQUIRED]
    assert [event.event for event in read_events()] == [ACQUIRED]


def test_one_who_waited_is_told_too() -> None:
    create_limit("db", 1, active_slots=1)
    told: list[Event] = []
    unsubscribe = subscribe(told.append)

    def work() -> None:
        with concurrency("db"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    update_limit("db", active_slots=0)
    thread.join(10)
    unsubscribe()
    assert [event.event for event in told] == [ACQUIRED, RELEASED]


def test_a_subscriber_that_fails_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    create_limit("db", 1)
    told: list[Event] = []

    def fail(event: Event) -> None:
        raise RuntimeError("not today")

    unsubscribe_both = [subscribe(fail), subscribe(told.append)]
    with caplog.at_level(logging.ERROR, logger="localconc"), concurrency("db"):
        assert read_limit("db").active_slots == 1
    for unsubscribe in unsubscribe_both:
        unsubscribe()
        unsubscribe()
    assert len(told) == 2
    assert "not today" in caplog.text
    assert read_limit("db").active_slots == 0


def test_events_are_read_oldest_first_since_a_moment_and_only_the_newest() -> None:
    create_limit("a", 1)
    create_limit("b", 1)
    with concurrency("a"):
        pass
    with concurrency("b"):
        moment = pendulum.now("UTC")
    assert [event.event for event in read_events()] == [ACQUIRED, RELEASED, ACQUIRED, RELEASED]
    assert [event.resource["localconc.resource.name"] for event in read_events("b")] == ["b", "b"]
    assert [event.event for event in read_events(since=moment)] == [RELEASED]
    assert [event.event for event in read_events(newest=1)] == [RELEASED]
    assert read_events(newest=0) == []
    times = [event.occurred for event in read_events()]
    assert times == sorted(times)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="callback"):
        subscribe(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="since"):
        read_events(since=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="newest"):
        read_events(newest=-1)


def test_the_history_is_bounded() -> None:
    create_limit("db", 1)
    for _ in range(schema.HISTORY_ROWS + 200):
        with concurrency("db"):
            pass
    events = read_events()
    assert 2 * schema.HISTORY_ROWS <= len(events) <= 2 * (schema.HISTORY_ROWS + schema.HISTORY_SLACK_ROWS)
    assert events[-1].event == RELEASED


def test_a_deleted_limit_stays_in_the_history_by_its_name() -> None:
    create_limit("db", 3)
    with concurrency("db"):
        pass
    delete_limit("db")
    assert [event.resource["localconc.resource.name"] for event in read_events()] == ["db", "db"]


def test_the_history_tells_what_subscribers_were_told_whatever_happened_to_the_limit_meanwhile() -> None:
    create_limit("db", 2)
    told: list[Event] = []
    unsubscribe = subscribe(told.append)
    with concurrency("db"):
        update_limit("db", limit=5)
    unsubscribe()
    assert [event.resource["limit"] for event in told] == [event.resource["limit"] for event in read_events("db")]
    assert [event.occurred for event in told] == [event.occurred for event in read_events("db")]
