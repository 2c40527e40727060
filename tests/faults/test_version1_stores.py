"""A store of version 1 (see tests/stores/version1) is taken over with all that is in it, whoever opens it first."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localconc import events, read_history, read_limit, read_limits, read_statistics
from localconc.errors import StoreError
from tests.faults.programs import Cast, Program, until
from tests.kit.version1 import DEFINITIONS, PAST_ACQUISITIONS, make_home, version_of

#: The process that held two slots of `database` and the one of `gpu` when the store was made.
_HOLDER_KEY = "29960f748bbd0b8c6f93712e"

_AVERAGES = {"api": 2.0, "database": 0.602981088, "gpu": 1.150132902, "idle": 2.0, "naïve name": 2.0}


@pytest.fixture
def home(localconc_home_directory: Path) -> Path:
    """A home of version 1, of this boot of this machine."""
    return make_home(localconc_home_directory)


def _living_holder(programs: Cast, home: Path) -> Program:
    """A process that keeps the lock which says that the holder of version 1 lives."""
    holder = programs.python(
        "import os, sys\nfrom filelock import lock_descriptor\n"
        "descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n"
        "os.write(descriptor, b'%d\\n' % os.getpid())\n"
        "assert lock_descriptor(descriptor, blocking=False)\nprint('locked', flush=True)\nsys.stdin.read()",
        home / "owners" / f"{_HOLDER_KEY}.lock",
    )
    assert holder.hear() == "locked"
    return holder


def test_the_store_becomes_one_of_version_2_with_its_definitions(home: Path) -> None:
    shown = {each.name: (each.limit, each.active, each.slot_decay_per_second) for each in read_limits()}

    assert {name: shown[name] for name in DEFINITIONS} == DEFINITIONS
    assert str(read_limit("gpu").id) == "b425832f-31cd-49b1-9984-0b318edb8cd1"
    assert version_of(home) == 2


def test_averages_are_taken_over(home: Path, programs: Cast) -> None:
    _living_holder(programs, home)  # else its end is a release, which moves them

    shown = {each.name: round(each.avg_slot_occupancy_seconds, 6) for each in read_limits()}

    assert {name: shown[name] for name in _AVERAGES} == {name: round(each, 6) for name, each in _AVERAGES.items()}
    assert version_of(home) == 2


def test_events_are_taken_over(home: Path) -> None:
    happened = events.read_events()

    assert len(happened) >= 34
    assert {event.resource["localconc.resource.name"] for event in happened} == {"database", "gpu", "api"}
    assert version_of(home) == 2


def test_a_holder_of_version_1_that_lives_keeps_its_slots_until_it_ends(home: Path, programs: Cast) -> None:
    holder = _living_holder(programs, home)
    newcomer = programs.puppet()

    assert not newcomer.enters("gpu")
    assert read_limit("database").active_slots == 2
    assert not newcomer.enters("database", occupy=4)
    assert version_of(home) == 2
    holder.kill()
    assert newcomer.enters("gpu", timeout_seconds=3)
    assert newcomer.enters("database", occupy=5, timeout_seconds=3)


def test_holders_and_waiters_of_version_1_that_are_dead_leave_nothing(home: Path, programs: Cast) -> None:
    newcomer = programs.puppet()

    assert newcomer.enters(["gpu", "database"], timeout_seconds=3)
    assert until(lambda: read_limit("database").active_slots == 1, "one is held")
    assert version_of(home) == 2


@pytest.mark.sweep
def test_several_that_open_it_at_once_take_it_over_once(home: Path, programs: Cast) -> None:
    crowd = [programs.puppet() for _ in range(6)]
    for puppet in crowd:
        puppet.tell("enter", "database", timeout_seconds=5)
    outcomes = [puppet.answer() for puppet in crowd]

    assert outcomes.count("done") == 5, outcomes
    assert read_limit("database").active_slots == 5
    assert version_of(home) == 2


def test_the_command_line_takes_it_over_as_well(home: Path, programs: Cast) -> None:
    status, said = programs.command(sys.executable, "-m", "localconc", "ls").end()

    assert status == 0
    assert "naïve name" in said
    assert version_of(home) == 2


def test_the_store_of_version_1_is_not_changed_in_its_place(home: Path) -> None:
    """Processes of version 1 that have it open find another file at its path, and come over: to an error there."""
    inode = os.stat(home / "localconc.db").st_ino
    descriptor = os.open(home / "localconc.db", os.O_RDONLY)
    try:
        read_limits()
        assert os.stat(home / "localconc.db").st_ino != inode
    finally:
        os.close(descriptor)


def test_the_history_is_taken_over_as_far_as_version_1_kept_one(home: Path) -> None:
    read_limits()  # what the dead held ends
    found = read_history()
    assert len([each for each in found if each.ending != "unseen"]) == PAST_ACQUISITIONS
    assert {each.name for each in found} == {"database", "gpu", "api"}
    assert [(each.slots, each.mode, each.ending) for each in found if each.name == "api"] == [
        (1, "rate_limit", "instant")
    ] * 4
    assert {(each.label, each.waited_seconds, each.numbers) for each in found} == {("", 0.0, ())}
    statistics = read_statistics("gpu")
    assert statistics.held_seconds is not None
    assert statistics.held_seconds.max == pytest.approx(0.3, abs=0.1)


# ---- a damaged one ---------------------------------------------------------------------------------------------------


def _overwrite_pages(file: Path) -> None:
    """Overwrite all but the first page, which tells the version."""
    content = file.read_bytes()
    file.write_bytes(content[:512] + b"\xff" * (len(content) - 512))


def _drop_a_table(file: Path) -> None:
    with sqlite3.connect(file) as store:
        store.execute("DROP TABLE slots")
    store.close()


def _truncate(file: Path) -> None:
    os.truncate(file, 3_000)


@pytest.mark.parametrize("damage", [_overwrite_pages, _drop_a_table, _truncate])
def test_a_damaged_one_is_set_aside_and_built_anew_from_the_log_of_definitions(
    home: Path, damage: Callable[[Path], None]
) -> None:
    damage(home / "localconc.db")
    shown = {each.name: (each.limit, each.active, each.slot_decay_per_second) for each in read_limits()}
    assert {name: shown[name] for name in DEFINITIONS} == DEFINITIONS
    assert version_of(home) == 2
    assert len(list(home.glob("localconc.db.damaged-*"))) >= 1


def test_a_damaged_one_that_living_processes_use_admits_nobody(home: Path, programs: Cast) -> None:
    _overwrite_pages(home / "localconc.db")
    holder = _living_holder(programs, home)
    with pytest.raises(StoreError, match=f"damaged, and other processes use it .*{holder.pid}"):
        read_limits()
    assert not programs_enter(programs, "gpu")
    holder.kill()
    assert read_limit("gpu").limit == 1


def programs_enter(programs: Cast, name: str) -> bool:
    """Return whether a further process gets in, by whatever answer it gets."""
    return programs.puppet().do("enter", name, timeout_seconds=0) == "done"
