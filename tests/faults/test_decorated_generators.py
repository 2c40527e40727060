"""The slots of a decorated generator would be gone before its body runs: it is refused, in every disguise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

import localconc.asyncio
import localconc.sync
from localconc import ensure_limit, read_limit


def generate(first: int = 0, second: int = 0) -> Iterator[int]:
    yield first


async def generate_later(first: int = 0, second: int = 0) -> AsyncIterator[int]:
    yield first


class Methods:
    def generate(self) -> Iterator[int]:
        yield 1

    async def generate_later(self) -> AsyncIterator[int]:
        yield 1


class Callable1:
    def __call__(self) -> Iterator[int]:
        yield 1


class Callable2:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


GENERATORS: dict[str, Callable[..., Any]] = {
    "a generator function": generate,
    "a partial one": partial(generate, 1),
    "a partial one of a partial one": partial(partial(generate, 1), second=2),
    "a method": Methods().generate,
    "a function of a class": Methods.generate,
    "a partial method": partial(Methods().generate),
    "a callable object": Callable1(),
    "a partial callable object": partial(Callable1()),
    "a lambda": lambda: (yield),
    "an asynchronous generator function": generate_later,
    "a partial asynchronous one": partial(generate_later, 1),
    "an asynchronous method": Methods().generate_later,
    "an asynchronous callable object": Callable2(),
    "a partial asynchronous callable object": partial(Callable2()),
}


@pytest.mark.parametrize("face", [localconc.sync, localconc.asyncio])
@pytest.mark.parametrize("kind", list(GENERATORS))
def test_a_generator_is_refused_when_it_is_decorated(face: Any, kind: str) -> None:
    with pytest.raises(TypeError):
        face.concurrency("L", limit=1)(GENERATORS[kind])


def test_plain_functions_partials_and_callable_objects_hold_while_they_run() -> None:
    ensure_limit("L", 1)

    class Caller:
        def __call__(self) -> int:
            return read_limit("L").active_slots

    def occupied(*ignored: object) -> int:
        return read_limit("L").active_slots

    for function in (occupied, partial(occupied, 1), Caller(), partial(Caller()), lambda: occupied(1)):
        assert localconc.sync.concurrency("L")(function)() == 1
    assert read_limit("L").active_slots == 0


def test_coroutine_functions_hold_while_they_run() -> None:
    ensure_limit("L", 1)

    async def occupied() -> int:
        return read_limit("L").active_slots

    assert asyncio.run(localconc.asyncio.concurrency("L")(occupied)()) == 1
    assert asyncio.run(localconc.asyncio.concurrency("L")(partial(occupied))()) == 1
