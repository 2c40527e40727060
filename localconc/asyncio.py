"""Concurrency and rate limits for the tasks of an event loop.

    >>> from localconc.asyncio import concurrency, rate_limit
    >>> async with concurrency("database", limit=10):
    ...     await query()
    >>> await rate_limit("api", limit=10, slot_decay_per_second=5)

The limits are those of `localconc.sync`: tasks, threads and processes share one queue. A waiting task lets its loop go
on; a blocking call from `localconc.sync` blocks the loop. The names and the first parameters are those of
`prefect.concurrency.asyncio`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from localconc._engine import registry
from localconc._engine.acquiring.contexts import of_task
from localconc._engine.acquiring.parents import note_task
from localconc._engine.core.arguments import printable
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, checked_call
from localconc._engine.holding.occupancy import Occupancy, occupancy_of_nothing
from localconc.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    DeadlockError,
    LimitExistsError,
    LimitNotFoundError,
    LocalconcError,
    NotSupportedError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from datetime import timedelta
    from types import TracebackType

    from localconc._engine.core.calls import Call
    from localconc._keeper import Handle, Keeper

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "DeadlockError",
    "LimitExistsError",
    "LimitNotFoundError",
    "LocalconcError",
    "NotSupportedError",
    "Occupancy",
    "StoreError",
    "acquire",
    "concurrency",
    "rate_limit",
]

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class concurrency:  # noqa: N801
    """Hold slots of one or more limits while a block or a coroutine function runs.

    At most `limit` slots of a name are held at any time, across all threads, tasks and processes of the machine. If
    none are free, the call waits in a first-in-first-out queue, and the event loop goes on meanwhile. A task that is
    cancelled, at whatever moment, leaves the queue or releases its slots.

    >>> async with concurrency("database", occupy=2, timeout_seconds=30) as occupancy:
    ...     print(f"waited {occupancy.waited_seconds:.1f} s")
    >>> @concurrency("gpu", limit=1)
    ... async def train(): ...

    Args:
        names: a name, or an iterable of names whose slots are acquired all together or not at all; each counts once.
            With None or nothing in it, nothing is acquired.
        occupy: slots to acquire of each limit, 1 or more.
        timeout_seconds: how long to wait at most, 0 or more (a `timedelta`, too); 0 tries once, None waits for as long
            as it takes.
        create_if_missing: create a placeholder for a missing limit (not enforced), or the limit itself with `limit=`.
        max_retries: give up after this many estimated waits, 0 or more; 0 tries once, None never gives up.
        limit: create the limit with this many slots, 0 or more, if it is missing or a placeholder; an existing limit
            keeps its value.
        slot_decay_per_second: its decay, 0 or from 1e-9 to 1e9, if `limit` creates it.
        strict: raise if a limit is missing or inactive, instead of going on without it; None for what
            `LOCALCONC_STRICT` says.
        label: up to 200 characters that say what the slots are for, wherever holders and waiters are shown.
        lease_duration, holder, raise_on_lease_renewal_failure: as in Prefect if a Prefect server keeps the limits; no
            effect on one machine, where nothing is leased.

    Returns:
        An asynchronous context manager whose `async with` returns an `Occupancy`, and a decorator of coroutine
        functions, which acquires at each call.

    Raises:
        ValueError, TypeError: at once, for an argument out of range, or a decorated function that is no coroutine
            function; the message names it and the value.
        AcquireConcurrencySlotTimeoutError: on entry, not admitted within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: on entry, out of retries, more slots than the limit has, or not enforced
            under `strict`.
        DeadlockError: on entry, the call would wait for something that its own caller holds.
        StoreError: on entry, the database can't be used. Exit raises nothing but a cancellation; a failed release
            is retried in the background.
    """

    __slots__ = ("__weakref__", "_call", "_handle", "_is_entered", "_keeper")

    def __init__(
        self,
        names: str | Iterable[str] | None,
        occupy: int = 1,
        timeout_seconds: float | timedelta | None = None,
        create_if_missing: bool | None = True,
        max_retries: int | None = None,
        *,
        limit: int | None = None,
        slot_decay_per_second: float | None = None,
        strict: bool | None = None,
        label: str | None = None,
        lease_duration: float | None = None,
        holder: Any = None,
        raise_on_lease_renewal_failure: bool | None = None,
    ) -> None:
        self._call = checked_call(
            CONCURRENCY,
            names,
            occupy,
            timeout_seconds,
            create_if_missing,
            max_retries,
            limit,
            slot_decay_per_second,
            strict,
            label,
            lease_duration,
            holder,
            raise_on_lease_renewal_failure,
        )
        self._is_entered = False
        self._keeper: Keeper | None = None
        self._handle: Handle | None = None

    async def __aenter__(self) -> Occupancy:
        if self._is_entered:
            raise RuntimeError("this concurrency(…) is already entered; create a new one for each `async with`")
        self._is_entered = True
        try:
            self._keeper, self._handle = await _acquire(self._call, _context())
        except BaseException:
            self._is_entered = False
            raise
        handle = self._handle
        if handle is None or handle.grant is None:
            return occupancy_of_nothing(self._call.request.names, _release)
        return Occupancy(self._keeper, handle.serial, handle.grant, self._call.request.names, _release)

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held = self._keeper, self._handle
        self._keeper, self._handle, self._is_entered = None, None, False
        await _release(*held)

    if not TYPE_CHECKING:  # a type checker says so by itself

        def __enter__(self) -> None:
            raise TypeError("this is localconc.asyncio.concurrency: use `async with`, or localconc.sync.concurrency")

        def __exit__(self, *_: object) -> None:
            """Never called: `__enter__` raises."""

    def __call__(
        self, function: Callable[Parameters, Coroutine[Any, Any, Returned]]
    ) -> Callable[Parameters, Coroutine[Any, Any, Returned]]:
        _refuse_others_than_coroutine_functions(function)
        call = self._call

        @wraps(function)
        async def limited(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
            keeper, handle = await _acquire(call.as_of_now(), _context())
            try:
                return await function(*args, **kwargs)
            finally:
                await _release(keeper, handle)

        return limited

    def __repr__(self) -> str:
        return (
            f"concurrency({', '.join(map(repr, self._call.request.names)) or None}, occupy={self._call.request.slots})"
        )


async def acquire(
    names: str | Iterable[str] | None,
    occupy: int = 1,
    timeout_seconds: float | timedelta | None = None,
    create_if_missing: bool | None = True,
    max_retries: int | None = None,
    *,
    limit: int | None = None,
    slot_decay_per_second: float | None = None,
    strict: bool | None = None,
    label: str | None = None,
    lease_duration: float | None = None,
    holder: Any = None,
    raise_on_lease_renewal_failure: bool | None = None,
) -> Occupancy:
    """Acquire slots of one or more limits, and hold them until `release()` of the returned occupancy.

    Use it where the acquisition and the release stand in different functions, or run in different tasks. If the
    occupancy is dropped without a release, its slots are released when it is collected.

    >>> occupancy = await acquire("download", limit=4)
    >>> task.add_done_callback(lambda _: loop.create_task(occupancy.release()))

    Args:
        names: a name, or an iterable of names whose slots are acquired all together or not at all; each counts once.
            With None or nothing in it, nothing is acquired.
        occupy: slots to acquire of each limit, 1 or more.
        timeout_seconds: how long to wait at most, 0 or more (a `timedelta`, too); 0 tries once, None waits for as long
            as it takes.
        create_if_missing: create a placeholder for a missing limit (not enforced), or the limit itself with `limit=`.
        max_retries: give up after this many estimated waits, 0 or more; 0 tries once, None never gives up.
        limit: create the limit with this many slots, 0 or more, if it is missing or a placeholder; an existing limit
            keeps its value.
        slot_decay_per_second: its decay, 0 or from 1e-9 to 1e9, if `limit` creates it.
        strict: raise if a limit is missing or inactive, instead of going on without it; None for what
            `LOCALCONC_STRICT` says.
        label: up to 200 characters that say what the slots are for, wherever holders and waiters are shown.
        lease_duration, holder, raise_on_lease_renewal_failure: as in Prefect if a Prefect server keeps the limits; no
            effect on one machine, where nothing is leased.

    Returns:
        The `Occupancy`, which is also an asynchronous context manager.

    Raises:
        ValueError, TypeError: for an argument out of range; the message names it and the value.
        AcquireConcurrencySlotTimeoutError: not admitted within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: out of retries, more slots than the limit has, or not enforced under `strict`.
        DeadlockError: the call would wait for something that its own caller holds.
        StoreError: the database can't be used.
    """
    call = checked_call(
        CONCURRENCY,
        names,
        occupy,
        timeout_seconds,
        create_if_missing,
        max_retries,
        limit,
        slot_decay_per_second,
        strict,
        label,
        lease_duration,
        holder,
        raise_on_lease_renewal_failure,
    )
    keeper, handle = await _acquire(call, 0)
    if handle is None or handle.grant is None:
        return occupancy_of_nothing(call.request.names, _release)
    return Occupancy(keeper, handle.serial, handle.grant, call.request.names, _release, handle)


async def rate_limit(
    names: str | Iterable[str] | None,
    occupy: int = 1,
    timeout_seconds: float | timedelta | None = None,
    create_if_missing: bool | None = True,
    *,
    limit: int | None = None,
    slot_decay_per_second: float | None = None,
    strict: bool | None = None,
) -> None:
    """Wait until slots of limits with decay are free, and take them. The caller never releases them: they drain.

    A limit of L with decay r admits a burst of L and then r a second, from however many processes: never more than
    L + r·t in any t seconds.

    >>> for page in pages:
    ...     await rate_limit("api", limit=10, slot_decay_per_second=5)
    ...     await fetch(page)

    Args:
        names: a name, or an iterable of names whose slots are acquired all together or not at all; each counts once.
        occupy: slots to acquire of each limit, 1 or more.
        timeout_seconds: how long to wait at most, 0 or more (a `timedelta`, too); 0 tries once, None waits for as long
            as it takes.
        create_if_missing: create a placeholder for a missing limit (not enforced), or the limit itself with `limit=`.
        limit: create the limit with this many slots, 0 or more, if it is missing or a placeholder; an existing limit
            keeps its value.
        slot_decay_per_second: its decay, from 1e-9 to 1e9, if `limit` creates it.
        strict: raise if a limit is missing or inactive, instead of going on without it; None for what
            `LOCALCONC_STRICT` says.

    Raises:
        ValueError, TypeError: for an argument out of range; the message names it and the value.
        AcquireConcurrencySlotTimeoutError: not admitted within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: a limit has no decay, fewer slots than asked for, or is not enforced under
            `strict`.
        StoreError: the database can't be used.
    """
    call = checked_call(
        RATE_LIMIT, names, occupy, timeout_seconds, create_if_missing, None, limit, slot_decay_per_second, strict
    )
    await _acquire(call, _context())


async def _acquire(call: Call, context: int) -> tuple[Keeper | None, Handle | None]:
    keeper = registry.keeper_unless_disabled() if call.request.names else None
    if keeper is None:
        return None, None
    task = asyncio.current_task()
    name = threading.current_thread().name if task is None else task.get_name()
    return keeper, await keeper.acquire_async(call, name if name.isascii() else printable(name), context)


async def _release(keeper: Keeper | None, handle: Handle | None) -> None:
    if keeper is None or handle is None:
        return
    registry.notice_fork()
    try:
        await keeper.release_async(handle)
    except BaseException:
        keeper.release_later(handle)
        raise


def _context() -> int:
    """Return what identifies the running task among all threads and tasks of this process."""
    note_task(context := of_task(asyncio.current_task()))
    return context


def _refuse_others_than_coroutine_functions(function: Any) -> None:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return
    if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(type(function).__call__):
        raise TypeError(
            f"{function!r} is an asynchronous generator function, whose body runs after the call: use "
            "`async with concurrency(…)` inside it"
        )
    raise TypeError(f"{function!r} is not a coroutine function: decorate it with localconc.sync.concurrency")
