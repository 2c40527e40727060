"""What can go wrong, under one base class.

>>> from localconc.errors import LocalconcError, StoreError
>>> issubclass(StoreError, LocalconcError)
True
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localconc._engine.core.views import Holder
    from localconc._engine.store.rows.listings import HolderEntry

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "DeadlockError",
    "LimitExistsError",
    "LimitNotFoundError",
    "LocalconcError",
    "NotSupportedError",
    "StoreError",
]


class LocalconcError(Exception):
    """The base of every error that localconc raises on purpose (bad arguments are `ValueError` or `TypeError`)."""


class ConcurrencySlotAcquisitionError(LocalconcError):
    """The slots can't be had: more than the limit, no decay, not enforced under `strict`, or out of retries."""


class DeadlockError(ConcurrencySlotAcquisitionError):
    """The call would wait for itself; the message tells what each caller of the circle holds, and waits for."""


class AcquireConcurrencySlotTimeoutError(LocalconcError, TimeoutError):
    """No slots became available within `timeout_seconds`.

    Attributes:
        names: the limits that were waited for.
        holders: the holders of their slots when the time was up.
        requests_ahead: how many requests were ahead in the queue.
    """

    names: tuple[str, ...] = ()
    requests_ahead: int = 0
    _entries: tuple[HolderEntry, ...] = ()

    @cached_property
    def holders(self) -> list[Holder]:
        """The holders, built when they are first read: few callers read them, and a thousand take milliseconds."""
        return [entry.shown() for entry in self._entries]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the holders as callers read them, without the private rows."""
        state = {**vars(self), "holders": self.holders}
        state.pop("_entries", None)
        return type(self), self.args, state


class LimitNotFoundError(LocalconcError, LookupError):
    """No limit has this name or id."""


class LimitExistsError(LocalconcError, ValueError):
    """A configured limit of this name exists already."""


class StoreError(LocalconcError):
    """The database can't be used; the message says which file, what happened and what to do."""


class NotSupportedError(LocalconcError):
    """The server that keeps the limits can't do this; the message names the server and what to use in its place."""
