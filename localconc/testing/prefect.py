"""Prefect's calls, served by this machine instead of a server."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from localconc import asyncio as our_asyncio
from localconc import errors
from localconc import sync as our_sync
from localconc.testing.block import Block
from localconc.testing.redirect import redirect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["replace_prefect"]

FACES = ("sync", "asyncio")
NAMES = ("concurrency", "rate_limit")

#: Parameters of Prefect's calls that ours understand. All others concern Prefect's server: leases and their holders.
UNDERSTOOD = ("names", "occupy", "timeout_seconds", "create_if_missing", "max_retries", "strict")


def replace_prefect() -> Block[None]:
    """Let localconc serve `concurrency` and `rate_limit` of `prefect.concurrency.sync` and `.asyncio` in a block.

    >>> with temporary_home(), replace_prefect():
    ...     ensure_limit("database", 2)
    ...     my_flow.fn()

    The functions are replaced in every module that has them, under any name, whether it was imported before the block
    or in it; they are put back afterwards. A caller that keeps Prefect's functions elsewhere (in a local name, a
    partial, a function decorated before the block) is redirected to ours as well. Calls take the parameters of the
    installed Prefect, in its order; those that concern its server (leases and their holders) have no effect. As in
    Prefect, a limit that does not exist is not enforced, unless that Prefect creates it. Errors are instances of both
    localconc's and Prefect's class. The limits are those of the home that the environment names.

    Returns:
        A context manager, which also decorates functions and coroutine functions.

    Raises:
        ImportError: on entry, Prefect is not installed, or lacks these functions; the message says which.
    """
    return Block(_replaced)


@contextmanager
def _replaced() -> Iterator[None]:
    stand_ins = _stand_ins()
    with ExitStack() as redirected:
        for theirs, ours in stand_ins:
            redirected.enter_context(redirect(theirs, ours))
        _exchange(stand_ins)
        try:
            yield
        finally:
            _exchange([(ours, theirs) for theirs, ours in stand_ins])


def _exchange(pairs: list[tuple[Any, Any]]) -> None:
    """Replace the first of each pair by the second, in every module that has it."""
    replacements = {id(old): new for old, new in pairs}
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name, value in list(vars(module).items()):
                if id(value) in replacements:
                    setattr(module, name, replacements[id(value)])


def _stand_ins() -> list[tuple[Any, Any]]:
    """Return each of Prefect's functions, with what stands in for it."""
    if importlib.util.find_spec("prefect") is None:
        raise ImportError(
            "replace_prefect() needs Prefect: install it with `pip install 'localconc[prefect]'`, or in a clone with "
            "`pip install '.[prefect]'`"
        )
    pairs = []
    for face in FACES:
        public = _imported(f"prefect.concurrency.{face}")
        missing = [name for name in NAMES if not callable(getattr(public, name, None))]
        if public is None or missing:
            version = getattr(importlib.import_module("prefect"), "__version__", "of unknown version")
            raise ImportError(
                f"Prefect {version} has no {', '.join(missing)} in prefect.concurrency.{face} (any more): "
                "replace_prefect() knows Prefect 3, where they are"
            )
        pairs += [(getattr(public, name), _stand_in(face, name, public)) for name in NAMES]
        private = _imported(f"prefect.concurrency._{face}")  # what Prefect's own engine uses, and the public one calls
        if private is not None:
            pairs += [
                (getattr(private, name), _stand_in(face, name, private))
                for name in NAMES
                if callable(getattr(private, name, None)) and getattr(private, name) is not getattr(public, name)
            ]
    return pairs


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        return None


def _stand_in(face: str, name: str, module: ModuleType) -> Any:
    theirs = getattr(module, name)
    signature = inspect.signature(theirs)
    makers: dict[tuple[str, str], Callable[..., Any]] = {
        ("sync", "concurrency"): _concurrency,
        ("sync", "rate_limit"): _rate_limit,
        ("asyncio", "concurrency"): _concurrency_async,
        ("asyncio", "rate_limit"): _rate_limit_async,
    }

    def options(*args: Any, **kwargs: Any) -> dict[str, Any]:
        given = signature.bind(*args, **kwargs)
        says_strict = "strict" in given.arguments  # else the environment may say so
        given.apply_defaults()
        return {"create_if_missing": False} | {
            option: value
            for option, value in given.arguments.items()
            if option in UNDERSTOOD and (option != "strict" or says_strict)
        }

    ours: Any = wraps(theirs)(makers[face, name](options))
    ours.__signature__ = signature  # what it wraps is redirected to it, and takes anything then
    return ours


def _concurrency(options: Callable[..., dict[str, Any]]) -> Any:
    @contextmanager
    def concurrency(*args: Any, **kwargs: Any) -> Iterator[None]:
        with ExitStack() as held:
            with _errors_of_both():
                held.enter_context(our_sync.concurrency(**options(*args, **kwargs)))
            yield

    return concurrency


def _rate_limit(options: Callable[..., dict[str, Any]]) -> Any:
    def rate_limit(*args: Any, **kwargs: Any) -> None:
        with _errors_of_both():
            our_sync.rate_limit(**options(*args, **kwargs))

    return rate_limit


def _concurrency_async(options: Callable[..., dict[str, Any]]) -> Any:
    @asynccontextmanager
    async def concurrency(*args: Any, **kwargs: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            with _errors_of_both():
                await held.enter_async_context(our_asyncio.concurrency(**options(*args, **kwargs)))
            yield

    return concurrency


def _rate_limit_async(options: Callable[..., dict[str, Any]]) -> Any:
    async def rate_limit(*args: Any, **kwargs: Any) -> None:
        with _errors_of_both():
            await our_asyncio.rate_limit(**options(*args, **kwargs))

    return rate_limit


@contextmanager
def _errors_of_both() -> Iterator[None]:
    """Raise what code written for Prefect catches."""
    try:
        yield
    except (errors.AcquireConcurrencySlotTimeoutError, errors.ConcurrencySlotAcquisitionError) as error:
        theirs = _class_of_prefect(error)
        if theirs is None or isinstance(error, theirs):
            raise
        both = type(type(error).__name__, (type(error), theirs), {"__doc__": type(error).__doc__})
        raised = both(*error.args)
        vars(raised).update(vars(error))
        raise raised from None


def _class_of_prefect(error: Exception) -> type[Exception] | None:
    """Return Prefect's class of an error, or of what ours is a special case of; None if it has none of these names."""
    module = _imported("prefect.concurrency.asyncio")
    candidates = (getattr(module, ancestor.__name__, None) for ancestor in type(error).__mro__[:2])
    return next((found for found in candidates if found is not None), None)
