"""Declaring, reading and changing limits."""

from __future__ import annotations

import stat
import uuid
from pathlib import Path
from typing import Any

import pendulum
import pytest

import localconc
from localconc import (
    LimitExistsError,
    LimitNotFoundError,
    StoreError,
    create_limit,
    delete_limit,
    ensure_limit,
    read_holders,
    read_limit,
    read_limits,
    read_waiters,
    update_limit,
)
from localconc._engine import registry
from localconc._engine.store import definitions_log
from localconc.events import read_events
from localconc.sync import concurrency


def test_a_limit_is_read_as_it_was_created() -> None:
    before = pendulum.now("UTC")
    made = create_limit("db", 7, active=False, active_slots=3, slot_decay_per_second=0.001)
    assert made == read_limit("db")
    assert (made.name, made.limit, made.active, made.active_slots) == ("db", 7, False, 3)
    assert (made.denied_slots, made.slot_decay_per_second, made.avg_slot_occupancy_seconds) == (0, 0.001, 2.0)
    assert isinstance(made.id, uuid.UUID)
    assert isinstance(made.created, pendulum.DateTime)
    assert before.subtract(seconds=1) <= made.created <= pendulum.now("UTC")
    with pytest.raises(AttributeError):
        made.limit = 8  # type: ignore[misc]


def test_a_configured_limit_is_not_created_twice_but_a_placeholder_turns_into_one() -> None:
    create_limit("db", 1)
    with pytest.raises(LimitExistsError, match="'db'"):
        create_limit("db", 2)
    with concurrency("placeholder"):
        pass
    identity = read_limit("placeholder").id
    made = create_limit("placeholder", 4)
    assert (made.id, made.limit, made.active) == (identity, 4, True)


def test_ensure_creates_updates_and_leaves_alone_what_is_so_already() -> None:
    first = ensure_limit("db", 2)
    assert ensure_limit("db", 2) == first
    changed = ensure_limit("db", 3, active=False, slot_decay_per_second=1.5)
    assert (changed.id, changed.limit, changed.active) == (first.id, 3, False)
    assert changed.slot_decay_per_second == 1.5
    assert changed.updated > first.updated


def test_limits_are_found_by_name_id_and_text_of_the_id() -> None:
    made = create_limit("db", 1)
    assert read_limit(made.id) == read_limit(str(made.id)) == read_limit("db")
    update_limit(made.id, name="renamed")
    assert read_limit("renamed").id == made.id
    delete_limit(str(made.id))
    assert read_limits() == []


def test_limits_are_sorted_by_name() -> None:
    for name in ("b", "a", "ä", "B"):
        create_limit(name, 1)
    assert [limit.name for limit in read_limits()] == sorted(["b", "a", "ä", "B"])


@pytest.mark.parametrize("call", [read_limit, delete_limit, read_holders, read_waiters])
def test_what_does_not_exist_is_not_found(call: Any) -> None:
    for absent in ("absent", uuid.uuid4(), str(uuid.uuid4())):
        with pytest.raises(LimitNotFoundError, match=str(absent)):
            call(absent)
    with pytest.raises(LimitNotFoundError):
        update_limit("absent", limit=3)


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    made = create_limit("db", 2, slot_decay_per_second=0.5)
    changed = update_limit("db", limit=5)
    assert (changed.limit, changed.slot_decay_per_second, changed.active, changed.id) == (5, 0.5, True, made.id)
    with pytest.raises(ValueError, match="nothing to change"):
        update_limit("db")
    create_limit("taken", 1)
    with pytest.raises(LimitExistsError, match="'taken'"):
        update_limit("db", name="taken")


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "a/b", "limit": 1},
        {"name": "", "limit": 1},
        {"name": "x", "limit": -1},
        {"name": "x", "limit": 1, "active_slots": -1},
        {"name": "x", "limit": 1, "slot_decay_per_second": -0.5},
        {"name": "x", "limit": 1, "slot_decay_per_second": float("nan")},
        {"name": "x", "limit": 2**40},
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_written(
    arguments: dict[str, Any], localconc_home_directory: Path
) -> None:
    with pytest.raises(ValueError, match=r"name|limit|active_slots|slot_decay"):
        create_limit(**arguments)
    assert not localconc_home_directory.exists()


def test_an_operator_sets_what_is_seen() -> None:
    create_limit("db", 5)
    with concurrency("db", occupy=2):
        assert update_limit("db", active_slots=4).active_slots == 4
        assert read_holders("db") == []
    assert read_limit("db").active_slots == 4
    assert update_limit("db", active_slots=0).active_slots == 0


def test_what_is_occupied_is_carried_over_when_a_decay_begins_changes_and_ends() -> None:
    create_limit("db", 10)
    with concurrency("db", occupy=6):
        assert update_limit("db", slot_decay_per_second=0.001).active_slots == 6
        assert update_limit("db", slot_decay_per_second=0.002).active_slots == 6
        assert update_limit("db", slot_decay_per_second=0).active_slots == 6
    assert read_limit("db").active_slots == 0


def test_the_average_occupancy_follows_the_formula_of_prefect() -> None:
    create_limit("db", 2)
    with concurrency("db"):
        pass
    assert read_limit("db").avg_slot_occupancy_seconds == pytest.approx(2.0 + (0.1 - 2.0) / 4)


@pytest.mark.parametrize("configured", ["~nobody-of-this-name/limits", "relative/to/nothing"])
def test_a_home_that_leads_nowhere_says_so(configured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("LOCALCONC_HOME", configured)
    with pytest.raises(StoreError, match=rf"LOCALCONC_HOME is '{configured}'.*absolute path"):
        read_limits()


def test_the_home_is_private_and_a_group_shared_one_stays_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, localconc_home_directory: Path
) -> None:
    create_limit("db", 1)
    assert stat.S_IMODE(localconc_home_directory.stat().st_mode) == 0o700
    for path in localconc_home_directory.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    monkeypatch.setenv("LOCALCONC_HOME", str(shared))
    create_limit("db", 1)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o2770
    for path in shared.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o060 == 0o060, path
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0, path
    registry.forget(shared)


def test_definitions_are_kept_beside_the_database(localconc_home_directory: Path) -> None:
    create_limit("kept", 3, slot_decay_per_second=0.5)
    create_limit("gone", 1)
    delete_limit("gone")
    update_limit("kept", name="renamed")
    definitions = definitions_log.replay(localconc_home_directory)
    assert set(definitions) == {"renamed"}
    assert (definitions["renamed"]["limit"], definitions["renamed"]["slot_decay_per_second"]) == (3, 0.5)


@pytest.mark.parametrize(
    "look_up",
    [
        read_limit,
        delete_limit,
        localconc.resume_limit,
        localconc.read_history,
        localconc.read_statistics,
        read_events,
        read_holders,
        read_waiters,
        lambda name: localconc.pause_limit(name, 1),
        lambda name: update_limit(name, limit=3),
    ],
)
def test_a_name_that_utf8_can_not_encode_is_no_limits(look_up: Any) -> None:
    with pytest.raises(LimitNotFoundError) as caught:
        look_up("caf\udce9")
    assert str(caught.value) == "There is no limit 'caf\N{REPLACEMENT CHARACTER}'."


def test_no_limit_is_made_with_a_name_that_utf8_can_not_encode() -> None:
    create_limit("db", 1)
    for make in (
        lambda name: create_limit(name, 1),
        lambda name: ensure_limit(name, 1),
        lambda name: update_limit("db", name=name),
    ):
        with pytest.raises(ValueError, match=r"^name: .*'caf\\udce9'$"):
            make("caf\udce9")
