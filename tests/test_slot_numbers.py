"""Which of a limit's slots an acquisition has, and what is said where there are no numbers."""

from __future__ import annotations

import asyncio

import pytest

from localconc import asyncio as for_tasks
from localconc import create_limit, ensure_limit, pause_limit, read_history, read_holders, update_limit
from localconc.sync import acquire, concurrency


def test_the_lowest_numbers_that_no_present_holder_has_are_given() -> None:
    ensure_limit("gpu", 4)
    first, second = acquire("gpu"), acquire("gpu", 2)
    assert (second.numbers, first.numbers) == ((0, 1), (2,))
    second.release()
    with concurrency("gpu", 3) as third:
        assert third.numbers == (0, 1, 3)
        assert {holder.numbers for holder in read_holders("gpu")} == {(2,), (0, 1, 3)}
    assert [each.numbers for each in read_history("gpu")] == [(2,), (0, 1), (0, 1, 3)]
    first.release()


def test_nobody_has_numbers_who_did_not_ask() -> None:
    ensure_limit("gpu", 2)
    with concurrency("gpu"):
        assert [holder.numbers for holder in read_holders("gpu")] == [()]


def test_a_task_has_numbers_too() -> None:
    ensure_limit("gpu", 2)

    async def use() -> tuple[int, ...]:
        async with for_tasks.concurrency("gpu") as occupancy:
            return occupancy.numbers

    assert asyncio.run(use()) == (0,)


def test_slots_of_several_limits_are_numbered_limit_by_limit() -> None:
    ensure_limit("gpu", 4)
    ensure_limit("api", 4, slot_decay_per_second=1)
    ensure_limit("off", 4, active=False)
    other = acquire("gpu")
    assert other.numbers == (0,)
    with concurrency(["gpu", "api", "off"], 2) as occupancy:
        assert occupancy.numbers_of("gpu") == (1, 2)
        assert occupancy.numbers_of("off") == ()
        with pytest.raises(ValueError, match=r"'gpu', 'api', 'off'.*numbers_of"):
            _ = occupancy.numbers
        with pytest.raises(ValueError, match="'api' drain"):
            occupancy.numbers_of("api")
        with pytest.raises(ValueError, match=r"no limit 'db'.*'gpu'"):
            occupancy.numbers_of("db")
    other.release()


def test_numbers_stay_readable_after_the_release_if_they_were_asked_for_before() -> None:
    ensure_limit("gpu", 2)
    with concurrency("gpu") as asked:
        assert asked.numbers == (0,)
    assert asked.numbers == (0,)
    with concurrency("gpu") as unasked:
        pass
    with pytest.raises(RuntimeError, match="'gpu' were released before"):
        _ = unasked.numbers


def test_numbers_of_one_limit_outlive_the_loss_of_another() -> None:
    create_limit("gpu", 2)
    create_limit("licence", 2)
    with concurrency(["gpu", "licence"]) as occupancy:
        update_limit("licence", active_slots=0)  # an operator forgets the holders
        assert occupancy.numbers_of("gpu") == (0,)
        with pytest.raises(RuntimeError, match="'licence'"):
            occupancy.numbers_of("licence")


@pytest.mark.parametrize(
    ("seconds", "error"), [(0, ValueError), (-1, ValueError), (31 * 86400, ValueError), ("5", TypeError)]
)
def test_a_pause_of_no_possible_length_is_refused_with_the_limit_and_the_value(
    seconds: float, error: type[Exception]
) -> None:
    ensure_limit("gpu", 2)
    with pytest.raises(error, match=f"'gpu'.*seconds.*{seconds!r}"):
        pause_limit("gpu", seconds)


def test_slots_have_numbers_once_the_decay_of_their_limit_has_ended() -> None:
    ensure_limit("gpu", 4)
    create_limit("api", 4, slot_decay_per_second=0.001)
    with concurrency(["gpu", "api"]) as occupancy:
        assert occupancy.numbers_of("gpu") == (0,)
        with pytest.raises(ValueError, match="drain while they are held"):
            occupancy.numbers_of("api")
        update_limit("api", slot_decay_per_second=0)
        assert (occupancy.numbers_of("api"), occupancy.numbers_of("gpu")) == ((0,), (0,))
