"""The figures of the history: percentiles, utilization, and what a window leaves out."""

from __future__ import annotations

import math
import time

import pendulum
import pytest

from localconc._engine.core.history import (
    AcquisitionRow,
    Hold,
    Percentiles,
    Statistics,
    acquisitions_of,
    percentiles,
    statistics_of,
)

NINE = 1_790_000_000.0


def figures(*holds: Hold, limit: int = 2, decay: float = 0.0, since: float | None = NINE, seconds: float = 100.0):
    return statistics_of(
        "db", holds, limit=limit, slot_decay_per_second=decay, since=since, until=NINE + seconds, refusals=3
    )


def hold(begin: float, end: float | None, *, waited: float = 0.0, slots: int = 1) -> Hold:
    return Hold(waited, NINE + begin, None if end is None else NINE + end, slots)


def test_utilization_is_the_share_of_slot_seconds_held():
    assert figures(hold(0, 50), hold(10, 20, slots=2), limit=2).utilization == pytest.approx((50 + 20) / 200)


def test_what_was_held_before_the_window_counts_for_its_part_of_it():
    found = figures(hold(-60, 25), limit=1)
    assert found.utilization == pytest.approx(0.25)
    assert found.acquisitions == 1
    assert found.held_seconds.max == pytest.approx(85)


def test_what_ended_before_the_window_is_left_out():
    found = figures(hold(-60, -1, waited=5), hold(1, 2, waited=7))
    assert found.acquisitions == 1
    assert found.waited_seconds.max == 7


def test_what_is_still_held_counts_until_now_but_has_no_duration_yet():
    found = figures(hold(40, math.inf), limit=1)
    assert found.utilization == pytest.approx(0.6)
    assert found.held_seconds is None
    assert found.acquisitions == 1


def test_an_end_that_nobody_saw_counts_as_an_acquisition_and_for_no_time():
    found = figures(hold(40, None, waited=2), hold(-40, None, waited=9))
    assert (found.acquisitions, found.utilization, found.held_seconds) == (1, 0.0, None)
    assert found.waited_seconds.max == 2


def test_a_limit_with_decay_or_without_slots_has_no_utilization():
    assert figures(hold(0, 50), decay=1.0).utilization is None
    assert figures(hold(0, 50), limit=0).utilization is None
    assert figures(hold(0, 0), seconds=0.0).utilization is None


def test_without_a_begin_the_window_begins_with_the_first_acquisition():
    found = figures(hold(60, 70), hold(20, 60), limit=1, since=None)
    assert found.since == pendulum.from_timestamp(NINE + 20)
    assert found.until == pendulum.from_timestamp(NINE + 100)
    assert found.utilization == pytest.approx(50 / 80)


def test_without_a_case_there_is_no_figure():
    found = figures(since=None)
    assert found == Statistics("db", found.until, found.until, 0, 3, None, None, None)


def test_percentiles_are_durations_that_occurred():
    assert percentiles([float(n) for n in range(100, 0, -1)]) == Percentiles(50, 90, 99, 100)
    assert percentiles([3.0]) == Percentiles(3, 3, 3, 3)
    assert percentiles([1.0, 2.0]) == Percentiles(1, 2, 2, 2)
    assert percentiles([]) is None


def test_a_clock_set_back_makes_no_negative_duration():
    assert figures(hold(10, 5)).held_seconds == Percentiles(0, 0, 0, 0)
    assert figures(hold(10, 5)).utilization == 0.0


def test_rows_become_acquisitions_with_moments_in_utc():
    row = AcquisitionRow("db", 2, (0, 1), 17, "MainThread", "job.py", "", 1.5, NINE + 0.25, None, "concurrency", "held")
    [acquisition] = acquisitions_of([row])
    assert acquisition.acquired_at == pendulum.from_timestamp(NINE + 0.25, tz="UTC")
    assert acquisition.acquired_at.timezone_name == "UTC"
    assert (acquisition.released_at, acquisition.ending, acquisition.numbers) == (None, "held", (0, 1))


def test_ten_thousand_rows_are_summed_up_in_well_under_150_ms():
    holds = [Hold(n % 977 / 10, NINE + n, NINE + n + n % 31, 1 + n % 3) for n in range(10_000)]
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        statistics_of("db", holds, limit=4, slot_decay_per_second=0.0, since=NINE, until=NINE + 10_000, refusals=0)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.1
