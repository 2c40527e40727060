"""The arithmetic of limits, against plain models and over millions of cases."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from localconc._engine.core import rules

decays = st.floats(min_value=0.001, max_value=10_000)
spans = st.floats(min_value=0, max_value=100_000)
starts = st.floats(min_value=0, max_value=1e7)
counts = st.integers(min_value=1, max_value=1_000)


@given(now=starts, slots=counts, decay=decays, elapsed=spans)
def test_slots_drain_at_the_decay_and_never_below_none(now: float, slots: int, decay: float, elapsed: float) -> None:
    empty_at = rules.empty_at_after(0.0, now, slots, decay)
    left = rules.occupied_slots(empty_at, now + elapsed, decay)
    noise = 1e-6 * max(1.0, decay) * max(1.0, now * 1e-6)
    assert abs(left - max(0.0, slots - decay * elapsed)) <= noise


@given(now=starts, limit=counts, decay=decays, data=st.data())
def test_a_request_fits_at_the_moment_that_was_foretold_and_not_before(
    now: float, limit: int, decay: float, data: st.DataObject
) -> None:
    occupy = data.draw(st.integers(min_value=1, max_value=limit))
    empty_at = rules.empty_at_after(0.0, now, limit, decay)
    due = rules.fits_at(empty_at, occupy, limit, decay)
    early = due - 0.01 / decay
    noise = 1e-6 + decay * now * 1e-15
    assert rules.occupied_slots(empty_at, due, decay) + occupy <= limit + noise + 1e-6
    if early > now and early < due:
        assert not rules.fits(rules.occupied_slots(empty_at, early, decay), occupy, limit)


@settings(max_examples=300)
@given(
    limit=st.integers(min_value=1, max_value=20),
    decay=st.floats(min_value=0.1, max_value=100),
    gaps=st.lists(st.floats(min_value=0, max_value=2), min_size=1, max_size=200),
)
def test_no_window_ever_admits_more_than_the_limit_and_what_drained_in_it(
    limit: int, decay: float, gaps: list[float]
) -> None:
    now, empty_at, admitted = 0.0, 0.0, []
    for gap in gaps:
        now += gap
        if rules.fits(rules.occupied_slots(empty_at, now, decay), 1, limit):
            empty_at = rules.empty_at_after(empty_at, now, 1, decay)
            admitted.append(now)
    for first, begin in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= limit + decay * (admitted[last] - begin) + 1e-3


@settings(max_examples=200)
@given(limit=st.integers(min_value=1, max_value=20), decay=st.floats(min_value=0.1, max_value=1_000))
def test_whoever_waits_for_each_slot_gets_exactly_the_decay(limit: int, decay: float) -> None:
    now, empty_at = 0.0, 0.0
    for _ in range(limit + 500):
        now = max(now, rules.fits_at(empty_at, 1, limit, decay))
        assert rules.fits(rules.occupied_slots(empty_at, now, decay), 1, limit)
        empty_at = rules.empty_at_after(empty_at, now, 1, decay)
    assert abs(now - 500 / decay) <= 1e-6 * (500 / decay) + 1e-9


@given(now=starts, slots=counts, decay=decays, elapsed=spans)
def test_what_is_given_back_is_what_has_not_drained(now: float, slots: int, decay: float, elapsed: float) -> None:
    drained_at = rules.empty_at_after(0.0, now, slots, decay)
    seconds = rules.undrained_seconds(drained_at, now + elapsed, slots, decay)
    assert 0 <= seconds <= slots / decay
    noise = 1e-6 + decay * now * 1e-15
    assert abs(seconds * decay - max(0.0, slots - decay * elapsed)) <= noise + 1e-9 * slots


@given(now=starts, slots=counts, old=decays, new=decays)
def test_a_new_decay_changes_the_speed_and_not_what_is_occupied(now: float, slots: int, old: float, new: float) -> None:
    empty_at = rules.empty_at_after(0.0, now, slots, old)
    moved = rules.rescaled(empty_at, now, old, new)
    noise = 1e-6 + (old + new) * max(now, slots / new) * 1e-14
    assert abs(rules.occupied_slots(moved, now, new) - rules.occupied_slots(empty_at, now, old)) <= noise


@given(wall=starts, ahead=st.floats(min_value=-1e9, max_value=1e9), now=starts, limit=counts, decay=decays)
def test_a_reboot_never_stalls_a_limit_for_longer_than_it_takes_to_drain_whole(
    wall: float, ahead: float, now: float, limit: int, decay: float
) -> None:
    empty_at = rules.empty_at_after_reboot(wall + ahead, wall, now, limit, decay)
    assert now <= empty_at <= now + limit / decay + 1e-6


@given(level=st.floats(min_value=0, max_value=1e6))
def test_what_is_displayed_is_never_less_than_what_is_occupied(level: float) -> None:
    shown = rules.displayed(level)
    assert shown >= level - rules.TOLERANCE_SLOTS
    assert shown < level + 1


@given(denied=st.floats(min_value=0, max_value=1e4), average=st.floats(min_value=0.1, max_value=1e3), elapsed=spans)
def test_refused_slots_are_forgotten_one_each_average_occupancy(denied: float, average: float, elapsed: float) -> None:
    left = rules.denied_slots(denied, 50.0, 50.0 + elapsed, 0.0, average)
    assert abs(left - max(0.0, denied - elapsed / average)) <= 1e-6 * max(1.0, denied)


def test_the_estimated_wait_is_that_of_prefect() -> None:
    assert rules.blocking_slots(2, 4.0, 3, 0.0) * rules.seconds_per_slot(0.0, 2.0) == 4.0
    assert rules.blocking_slots(2, 4.0, 3, 0.5) * rules.seconds_per_slot(0.5, 2.0) == 12.0
