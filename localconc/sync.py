"""Concurrency and rate limits for threads and processes.

    >>> from localconc.sync import concurrency, rate_limit
    >>> with concurrency("database", limit=10):
    ...     query()
    >>> rate_limit("api", limit=10, slot_decay_per_second=5)

The names and the first parameters are those of `prefect.concurrency.sync`.
"""

from __future__ import annotations

import threading
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from localconc._engine import registry
from localconc._engine.acquiring.contexts import of_caller
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
    from collections.abc import Callable, Iterable
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

#: Flags of code whose call returns before its body has run: generators, coroutines, asynchronous generators.
_CO_GENERATOR: Final = 0x20
_CO_ASYNCHRONOUS: Final = 0x80 | 0x100 | 0x200


class concurrency:  # noqa: N801
    """Hold slots of one or more limits while a block or a function runs.

    At most `limit` slots of a name are held at any time, across all threads, tasks and processes of the machine. If
    none are free, the call waits in a first-in-first-out queue.

    >>> with concurrency("database", occupy=2, timeout_seconds=30) as occupancy:
    ...     print(f"waited {occupancy.waited_seconds:.1f} s")
    >>> @concurrency("gpu", limit=1)
    ... def train(): ...

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
        A context manager whose `with` returns an `Occupancy`, and a decorator, which acquires at each call.

    Raises:
        ValueError, TypeError: at once, for an argument out of range, or a decorated function that returns before its
            body runs (a generator or coroutine function); the message names it and the value.
        AcquireConcurrencySlotTimeoutError: on entry, not admitted within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: on entry, out of retries, more slots than the limit has, or not enforced
            under `strict`.
        DeadlockError: on entry, the call would wait for something that its own caller holds.
        StoreError: on entry, the database can't be used. Exit never raises; a failed release is retried in the
            background.
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

    def __enter__(self) -> Occupancy:
        if self._is_entered:
            raise RuntimeError("this concurrency(…) is already entered; create a new one for each `with`")
        self._is_entered = True
        try:
            self._keeper, self._handle = _acquire(self._call, of_caller())
        except BaseException:
            self._is_entered = False
            raise
        handle = self._handle
        if handle is None or handle.grant is None:
            return occupancy_of_nothing(self._call.request.names, _release)
        return Occupancy(self._keeper, handle.serial, handle.grant, self._call.request.names, _release)

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            _release(self._keeper, self._handle)
        finally:
            self._keeper = self._handle = None
            self._is_entered = False

    async def __aenter__(self) -> None:
        raise TypeError(
            "this is localconc.sync.concurrency: use `with`, or localconc.asyncio.concurrency in coroutines"
        )

    async def __aexit__(self, *_: object) -> None:
        """Never called: `__aenter__` raises."""

    def __call__(self, function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
        _refuse_early_returns(function)
        call = self._call

        @wraps(function)
        def limited(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
            keeper, handle = _acquire(call.as_of_now(), of_caller())
            try:
                return function(*args, **kwargs)
            finally:
                _release(keeper, handle)

        return limited

    def __repr__(self) -> str:
        return (
            f"concurrency({', '.join(map(repr, self._call.request.names)) or None}, occupy={self._call.request.slots})"
        )


def acquire(
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

    Use it where the acquisition and the release stand in different functions, or run in different threads. If the
    occupancy is dropped without a release, its slots are released when it is collected.

    >>> occupancy = acquire("download", limit=4)
    >>> start_download(on_done=occupancy.release)

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
        The `Occupancy`, which is also a context manager.

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
    keeper, handle = _acquire(call, 0)
    if handle is None or handle.grant is None:
        return occupancy_of_nothing(call.request.names, _release)
    return Occupancy(keeper, handle.serial, handle.grant, call.request.names, _release, handle)


def rate_limit(
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
    ...     rate_limit("api", limit=10, slot_decay_per_second=5)
    ...     fetch(page)

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
    _acquire(call, of_caller())


def _acquire(call: Call, context: int) -> tuple[Keeper | None, Handle | None]:
    keeper = registry.keeper_unless_disabled() if call.request.names else None
    if keeper is None:
        return None, None
    name = threading.current_thread().name
    if not name.isascii():
        name = printable(name)
    return keeper, keeper.acquire(call, name, context)


def _release(keeper: Keeper | None, handle: Handle | None) -> None:
    if keeper is None or handle is None:
        return
    registry.notice_fork()
    try:
        keeper.release(handle)
    except BaseException:
        keeper.release_later(handle)
        raise


def _refuse_early_returns(function: Any) -> None:
    """Refuse what is no function, and functions whose body runs after the call, when the slot would be released."""
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, type):
        raise TypeError(f"{function!r} is a class: decorate its __init__, or the function that uses it")
    if isinstance(function, (classmethod, staticmethod)):
        raise TypeError(f"{function!r} can't be decorated: put concurrency(…) below @{type(function).__name__}")
    if not callable(function):
        raise TypeError(f"{function!r} is no function, so concurrency(…) can't decorate it")
    called = function if hasattr(function, "__code__") else type(function).__call__
    flags = getattr(getattr(called, "__code__", None), "co_flags", 0)
    if flags & _CO_ASYNCHRONOUS:
        raise TypeError(f"{function!r} is asynchronous: decorate it with localconc.asyncio.concurrency")
    if flags & _CO_GENERATOR:
        raise TypeError(
            f"{function!r} is a generator function, whose body runs after the call: use `with concurrency(…)` inside it"
        )
