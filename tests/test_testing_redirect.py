"""Functions that run another one while a block runs, wherever they are called from."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from localconc.testing.redirect import redirect


def double(number: int = 1) -> int:
    return 2 * number


async def double_in_a_task(number: int = 1) -> int:
    return 2 * number


@contextmanager
def doubled(number: int = 1) -> Iterator[int]:
    yield 2 * number


@asynccontextmanager
async def doubled_in_a_task(number: int = 1) -> AsyncIterator[int]:
    yield 2 * number


@doubled(3)
def decorated() -> str:
    return "done"


def test_a_function_runs_the_other_one_in_the_block_and_itself_after_it() -> None:
    signature = inspect.signature(double)
    with redirect(double, lambda number, times: times * number):
        assert double(5, times=3) == 15
    assert double() == 2
    assert inspect.signature(double) == signature


def test_blocks_and_coroutine_functions_are_redirected_too() -> None:
    @contextmanager
    def tripled(number: int) -> Iterator[int]:
        entered.append(number)
        yield 3 * number

    @asynccontextmanager
    async def tripled_in_a_task(number: int) -> AsyncIterator[int]:
        yield 3 * number

    async def triple_in_a_task(number: int) -> int:
        return 3 * number

    async def main() -> None:
        async with doubled_in_a_task(5) as number:
            assert number == 15
        assert await double_in_a_task(5) == 15

    entered: list[int] = []
    with (
        redirect(doubled, tripled),
        redirect(doubled_in_a_task, tripled_in_a_task),
        redirect(double_in_a_task, triple_in_a_task),
    ):
        with doubled(5) as number:
            assert number == 15
        assert decorated() == "done"
        asyncio.run(main())
    assert entered == [5, 3]
    with doubled() as number:
        assert number == 2


def test_it_ends_when_the_block_raises_and_nests() -> None:
    with redirect(double, lambda: 3):
        with pytest.raises(ZeroDivisionError), redirect(double, lambda: 1 / 0):
            double()
        assert double() == 3
    assert double() == 2


def test_what_can_not_be_redirected_stays_as_it_is() -> None:
    number = 7

    def closed_over() -> int:
        return number

    with redirect(closed_over, lambda: 1), redirect(len, lambda _: 1):
        assert (closed_over(), len("four")) == (7, 4)
