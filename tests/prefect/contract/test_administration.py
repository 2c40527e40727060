"""Declaring and reading limits, on this machine and on a server."""

from __future__ import annotations

from uuid import uuid4

import pytest

from localconc import create_limit, delete_limit, ensure_limit, read_limit, read_limits, update_limit
from localconc.errors import LimitExistsError, LimitNotFoundError
from localconc.sync import concurrency


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


def test_an_operator_frees_slots_that_no_process_releases(name: str) -> None:
    create_limit(name, 2, active_slots=2)
    with pytest.raises(TimeoutError), concurrency(name, timeout_seconds=0):
        pass
    update_limit(name, active_slots=0)
    with concurrency(name, timeout_seconds=0):
        pass


def test_an_operator_occupies_slots_that_no_process_holds(name: str) -> None:
    create_limit(name, 2)
    assert update_limit(name, active_slots=2).active_slots == 2
    with pytest.raises(TimeoutError), concurrency(name, timeout_seconds=0):
        pass


def test_an_update_changes_something(name: str) -> None:
    create_limit(name, 1)
    with pytest.raises(ValueError, match="change"):
        update_limit(name)


def test_an_update_by_id_is_seen_by_the_next_call(name: str) -> None:
    limit = create_limit(name, 1)
    with concurrency(name) as occupancy:
        assert [held.id for held in occupancy.limits] == [limit.id]
    update_limit(limit.id, active=False)
    with concurrency(name) as occupancy:
        assert occupancy.limits == ()


def test_moments_are_of_utc(name: str) -> None:
    limit = create_limit(name, 1)
    assert (limit.created.timezone_name, limit.updated.timezone_name) == ("UTC", "UTC")
    assert limit.updated >= limit.created
