"""Functions that run another one for a while, whoever calls them and wherever the caller has them from.

A name in a module is easily replaced, but a function is also kept in local names, partials, classes and decorated
functions. So the function itself changes, in the one part that it does not share with others: its code.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["led_to"]


@contextmanager
def led_to(function: Callable[..., Any], other: Callable[..., Any]) -> Iterator[None]:
    """Let a function (or the one inside its decorators) run another of the same kind while a block runs.

    One that can't be led, as it is none of Python's or has a closure, stays as it is.
    """
    led = inspect.unwrap(function)
    if not isinstance(led, FunctionType) or led.__closure__:
        yield
        return
    before = led.__code__, led.__defaults__, led.__kwdefaults__
    led.__code__, led.__defaults__, led.__kwdefaults__ = _runner(led).__code__, None, {"_other": other}
    try:
        yield
    finally:
        led.__code__, led.__defaults__, led.__kwdefaults__ = before


def _runner(led: FunctionType) -> Any:
    """What a function of this kind is to do; it can use nothing but its arguments."""
    if inspect.isasyncgenfunction(led):
        return _run_block_of_task
    if inspect.isgeneratorfunction(led):
        return _run_block
    if inspect.iscoroutinefunction(led):
        return _run_in_task
    return _run


def _run(*args: Any, _other: Any, **kwargs: Any) -> Any:
    return _other(*args, **kwargs)


async def _run_in_task(*args: Any, _other: Any, **kwargs: Any) -> Any:
    return await _other(*args, **kwargs)


def _run_block(*args: Any, _other: Any, **kwargs: Any) -> Iterator[Any]:
    with _other(*args, **kwargs) as value:
        yield value


async def _run_block_of_task(*args: Any, _other: Any, **kwargs: Any) -> AsyncIterator[Any]:
    async with _other(*args, **kwargs) as value:
        yield value
