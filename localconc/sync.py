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
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from localconc._engine import homes
from localconc._engine.calls import checked_call
from localconc._engine.model import CONCURRENCY, RATE_LIMIT
from localconc._engine.occupancy import Occupancy
from localconc.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    LimitExistsError,
    LimitNotFoundError,
    LocalconcError,
    NotSupportedError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from localconc._engine.calls import Call

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "LimitExistsError",
    "LimitNotFoundError",
    "LocalconcError",
    "NotSupportedError",
    "Occupancy",
    "StoreError",
    "concurrency",
    "rate_limit",
]

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class concurrency:  # noqa: N801
    """Hold slots of one or more limits while a block or a function runs.

    At most `limit` slots of a name are held at any time, by all threads, tasks and processes of the machine together;
    who finds none free waits in line.

    >>> with concurrency("database", occupy=2, timeout_seconds=30) as occupancy:
    ...     print(f"waited {occupancy.waited_seconds:.1f} s")
    >>> @concurrency("gpu", limit=1)
    ... def train(): ...

    Args:
        names: a name, or an iterable of names whose slots are taken all together or not at all; each counts once.
            With None or nothing in it, nothing is acquired.
        occupy: slots to take of each limit, 1 or more.
        timeout_seconds: how long to wait at most, 0 or more; 0 tries once, None waits for as long as it takes.
        create_if_missing: make a placeholder of a missing limit (not enforced), or the limit itself with `limit=`.
        max_retries: how many estimated waits to stay for, 0 or more; 0 tries once, None does not count.
        limit: make a missing limit (or a placeholder) one with so many slots, 0 or more. What is stored wins.
        slot_decay_per_second: its decay, 0 or more, where `limit` creates it.
        strict: raise where a limit is missing or inactive, instead of going on without it.
        lease_duration, holder, raise_on_lease_renewal_failure: as in Prefect, if a Prefect server keeps the limits.

    Returns:
        A context manager that yields an `Occupancy`, and a decorator. The decorator acquires at each call.

    Raises:
        ValueError, TypeError: at once, for an argument out of range; the message names it and the value.
        AcquireConcurrencySlotTimeoutError: on entering, not admitted within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: on entering, out of retries, more slots than the limit has, or not enforced
            under `strict`.
        StoreError: on entering, the database can't be used. Leaving never raises: slots are given back as soon as the
            database allows.
    """

    __slots__ = ("__weakref__", "_call", "_is_entered", "_occupancy")

    def __init__(
        self,
        names: str | Iterable[str] | None,
        occupy: int = 1,
        timeout_seconds: float | None = None,
        create_if_missing: bool | None = True,
        max_retries: int | None = None,
        *,
        limit: int | None = None,
        slot_decay_per_second: float | None = None,
        strict: bool = False,
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
            lease_duration,
            holder,
            raise_on_lease_renewal_failure,
        )
        self._is_entered = False
        self._occupancy: Occupancy | None = None

    def __enter__(self) -> Occupancy:
        if self._is_entered:
            raise RuntimeError("this concurrency(…) is entered already: make a new one for each block")
        self._is_entered = True
        try:
            self._occupancy = occupancy = _acquire(self._call)
            occupancy.belong_to(self)
        except BaseException:
            self._is_entered = False
            raise
        return occupancy

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        occupancy = self._occupancy
        if occupancy is not None:
            try:
                _give_back(occupancy)
            except BaseException:
                occupancy.release_later()
                raise
            finally:
                self._occupancy = None
                self._is_entered = False

    def __call__(self, function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
        _refuse_coroutines(function)
        call = self._call

        @wraps(function)
        def limited(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
            occupancy = _acquire(call)
            try:
                return function(*args, **kwargs)
            finally:
                _give_back(occupancy)

        return limited

    def __repr__(self) -> str:
        return f"concurrency({', '.join(map(repr, self._call.request.names))}, occupy={self._call.request.slots})"


def rate_limit(
    names: str | Iterable[str] | None,
    occupy: int = 1,
    timeout_seconds: float | None = None,
    create_if_missing: bool | None = True,
    *,
    limit: int | None = None,
    slot_decay_per_second: float | None = None,
    strict: bool = False,
) -> None:
    """Wait until slots of limits with decay are free, and take them for good: they drain by themselves.

    A limit of L with decay r admits a burst of L and then r a second, from however many processes: never more than
    L + r·t in any t seconds.

    >>> for page in pages:
    ...     rate_limit("api", limit=10, slot_decay_per_second=5)
    ...     fetch(page)

    Args:
        names: a name, or an iterable of names whose slots are taken all together or not at all; each counts once.
        occupy: slots to take of each limit, 1 or more.
        timeout_seconds: how long to wait at most, 0 or more; 0 tries once, None waits for as long as it takes.
        create_if_missing: make a placeholder of a missing limit (not enforced), or the limit itself with `limit=`.
        limit: make a missing limit (or a placeholder) one with so many slots, 0 or more. What is stored wins.
        slot_decay_per_second: its decay, above 0, where `limit` creates it.
        strict: raise where a limit is missing or inactive, instead of going on without it.

    Raises:
        ValueError, TypeError: for an argument out of range; the message names it and the value.
        AcquireConcurrencySlotTimeoutError: not admitted within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: a limit has no decay, fewer slots than asked for, or is not enforced under
            `strict`.
        StoreError: the database can't be used.
    """
    _acquire(
        checked_call(
            RATE_LIMIT,
            names,
            occupy,
            timeout_seconds,
            create_if_missing,
            None,
            limit,
            slot_decay_per_second,
            strict,
        )
    )


def _acquire(call: Call) -> Occupancy:
    if not call.request.names or homes.is_disabled():
        return Occupancy.of_nothing()
    acquired: Any = homes.current().acquire(call, threading.current_thread().name)
    return acquired  # type: ignore[no-any-return]


def _give_back(occupancy: Occupancy) -> None:
    keeper: Any = occupancy.keeper
    if keeper is not None:
        keeper.release(occupancy)


def _refuse_coroutines(function: Any) -> None:
    while isinstance(function, partial):
        function = function.func
    called = function if hasattr(function, "__code__") or not callable(function) else type(function).__call__
    code = getattr(called, "__code__", None)
    if getattr(code, "co_flags", 0) & 0x380:  # a coroutine function, or an asynchronous generator
        raise TypeError(f"{function!r} is asynchronous: decorate it with localconc.asyncio.concurrency")
