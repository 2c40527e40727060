"""Blocks of `with` that decorate functions, too."""

from __future__ import annotations

import inspect
import os
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from localconc._environment import DISABLED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = ["Block", "disabled", "environment"]

Entered = TypeVar("Entered")
Function = TypeVar("Function", bound="Callable[..., Any]")


class Block(Generic[Entered]):
    """Something that is in force while a block runs, or during each call of a function that it decorates.

    Args:
        opened: makes a new context manager for each entry.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[Entered]]) -> None:
        self._opened = opened
        self._entered: list[AbstractContextManager[Entered]] = []

    def __enter__(self) -> Entered:
        block = self._opened()
        value = block.__enter__()
        self._entered.append(block)
        return value

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered.pop().__exit__(exception_type, exception, traceback)

    def __call__(self, function: Function) -> Function:
        if isinstance(function, type):
            raise TypeError(f"{function!r} is a class: decorate its methods")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is a generator function: use `with` inside it instead of decorating it")

        @wraps(function)
        def within(*args: Any, **kwargs: Any) -> Any:
            with self._opened():
                return function(*args, **kwargs)

        @wraps(function)
        async def within_coroutine(*args: Any, **kwargs: Any) -> Any:
            with self._opened():
                return await function(*args, **kwargs)

        return cast("Function", within_coroutine if inspect.iscoroutinefunction(function) else within)


def disabled() -> Block[None]:
    """Switch all limits off in a block: calls of `concurrency`, `acquire` and `rate_limit` return at once.

    >>> with disabled():
    ...     run_import()
    >>> @disabled()
    ... async def test_import(): ...

    Arguments are still checked, but nothing is enforced, and the store is not touched. Calls that set or read limits
    work as always. The block sets `LOCALCONC_DISABLED=1`, so it applies to every thread of the process and to the
    children that it starts; set the variable yourself to switch limits off for a whole run (empty, or `0`, leaves them
    on). Slots acquired before the block stay held. Blocks nest.

    Returns:
        A context manager, which also decorates functions and coroutine functions.
    """
    return Block(lambda: environment(DISABLED, "1"))


@contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """Set (or with None, unset) a variable of this process and its children while a block runs."""
    before = os.environ.get(name)
    _put(name, value)
    try:
        yield
    finally:
        _put(name, before)


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
