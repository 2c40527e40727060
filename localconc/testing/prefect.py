"""Code written for Prefect, with its `concurrency` and `rate_limit` kept by this machine instead of a server."""

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
from localconc.testing.leading import led_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["replace_prefect"]

FACES = ("sync", "asyncio")
NAMES = ("concurrency", "rate_limit")

#: What Prefect's calls take and ours understand. What else they take belongs to the server: leases and who holds them.
UNDERSTOOD = ("names", "occupy", "timeout_seconds", "create_if_missing", "max_retries", "strict")


def replace_prefect() -> Block[None]:
    """Let `concurrency` and `rate_limit` of `prefect.concurrency.sync` and `.asyncio` be kept by localconc in a block.

    >>> with temporary_home(), replace_prefect():
    ...     ensure_limit("database", 2)
    ...     my_flow.fn()

    The names are replaced wherever a module has them, imported before the block or in it, under whatever name, and put
    back afterwards. Whoever has Prefect's functions from elsewhere (a local name, a partial, a function decorated
    before the block) is led to ours as well. Calls take what the installed Prefect takes, as it takes it; what belongs
    to its server (leases and their holders) has no effect. As in Prefect, a limit that does not exist is not enforced,
    unless that Prefect makes one. Errors are those of localconc and of Prefect at once. Limits are those of the home
    that the environment names.

    Returns:
        A context manager, and a decorator of functions and of coroutine functions.

    Raises:
        ImportError: on entering, Prefect is not installed, or does not have these names any more; it says which.
    """
    return Block(_replaced)


@contextmanager
def _replaced() -> Iterator[None]:
    stand_ins = _stand_ins()
    with ExitStack() as led:
        for theirs, ours in stand_ins:
            led.enter_context(led_to(theirs, ours))
        _exchange(stand_ins)
        try:
            yield
        finally:
            _exchange([(ours, theirs) for theirs, ours in stand_ins])


def _exchange(pairs: list[tuple[Any, Any]]) -> None:
    """Put the second of each pair wherever a module has the first."""
    replacements = {id(old): new for old, new in pairs}
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name, value in list(vars(module).items()):
                if id(value) in replacements:
                    setattr(module, name, replacements[id(value)])


def _stand_ins() -> list[tuple[Any, Any]]:
    """Each of Prefect's functions, with what stands in for it."""
    if importlib.util.find_spec("prefect") is None:
        raise ImportError("replace_prefect() needs Prefect: install it with `pip install 'localconc[prefect]'`")
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
        given.apply_defaults()
        return {"create_if_missing": False} | {
            option: value for option, value in given.arguments.items() if option in UNDERSTOOD
        }

    ours: Any = wraps(theirs)(makers[face, name](options))
    ours.__signature__ = signature  # what it wraps is led to it, and takes anything then
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
        theirs = getattr(_imported("prefect.concurrency.asyncio"), type(error).__name__, None)
        if theirs is None or isinstance(error, theirs):
            raise
        both = type(type(error).__name__, (type(error), theirs), {"__doc__": type(error).__doc__})
        raise both(*error.args) from None
