"""Functions that run another function for a while, from wherever they are called.

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

__all__ = ["redirect"]


@contextmanager
def redirect(function: Callable[..., Any], target: Callable[..., Any]) -> Iterator[None]:
    """Let a function (or the one inside its decorators) run a target of the same kind while a block runs.

    A function that can't be redirected, because it is not written in Python or has a closure, stays as it is.
    """
    redirected = inspect.unwrap(function)
    if not isinstance(redirected, FunctionType) or redirected.__closure__:
        yield
        return
    before = redirected.__code__, redirected.__defaults__, redirected.__kwdefaults__
    code = _runner(redirected).__code__
    redirected.__code__, redirected.__defaults__, redirected.__kwdefaults__ = code, None, {"_target": target}
    try:
        yield
    finally:
        redirected.__code__, redirected.__defaults__, redirected.__kwdefaults__ = before


def _runner(function: FunctionType) -> Any:
    """Return what a function of this kind is to do; its code can use nothing but its arguments."""
    if inspect.isasyncgenfunction(function):
        return _run_block_of_task
    if inspect.isgeneratorfunction(function):
        return _run_block
    if inspect.iscoroutinefunction(function):
        return _run_in_task
    return _run


def _run(*args: Any, _target: Any, **kwargs: Any) -> Any:
    return _target(*args, **kwargs)


async def _run_in_task(*args: Any, _target: Any, **kwargs: Any) -> Any:
    return await _target(*args, **kwargs)


def _run_block(*args: Any, _target: Any, **kwargs: Any) -> Iterator[Any]:
    with _target(*args, **kwargs) as value:
        yield value


async def _run_block_of_task(*args: Any, _target: Any, **kwargs: Any) -> AsyncIterator[Any]:
    async with _target(*args, **kwargs) as value:
        yield value
