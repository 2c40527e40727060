"""Occupancies whose slots were released hold nothing, so no `with` enters them."""

from __future__ import annotations

import asyncio

import pytest

import localconc.asyncio
from localconc import create_limit, read_limit
from localconc.sync import acquire, concurrency


@pytest.mark.parametrize("names", ["db", None])
def test_a_released_handle_can_not_be_entered(names: str | None) -> None:
    create_limit("db", 1)
    occupancy = acquire(names)
    occupancy.release()
    with pytest.raises(RuntimeError, match="released"), occupancy:
        raise AssertionError("the body ran")
    occupancy.release()


def test_a_handle_can_not_be_entered_twice() -> None:
    create_limit("db", 1)
    occupancy = acquire("db")
    with occupancy:
        assert read_limit("db").active_slots == 1
    with pytest.raises(RuntimeError, match="released"), occupancy:
        raise AssertionError("the body ran")


def test_what_a_block_held_can_not_be_entered_after_the_block() -> None:
    create_limit("db", 1)
    with concurrency("db") as occupancy:
        pass
    with pytest.raises(RuntimeError, match="released"), occupancy:
        raise AssertionError("the body ran")


def test_tasks_can_not_enter_a_released_handle_either() -> None:
    create_limit("db", 1)

    async def main() -> None:
        occupancy = await localconc.asyncio.acquire("db")
        async with occupancy:
            assert read_limit("db").active_slots == 1
        with pytest.raises(RuntimeError, match="released"):
            async with occupancy:
                raise AssertionError("the body ran")
        await occupancy.release()

    asyncio.run(main())
