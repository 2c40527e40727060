"""Acquisitions and releases as events: subscribe to those of this process, or read those of all processes.

>>> from localconc.events import read_events, subscribe
>>> unsubscribe = subscribe(lambda event: print(event.event, event.resource["localconc.resource.name"]))
>>> unsubscribe()
>>> read_events("database", newest=2)
[Event(event='localconc.concurrency-limit.acquired', ...), Event(event='localconc.concurrency-limit.released', ...)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine import registry
from localconc._engine.core import arguments
from localconc._engine.core.views import Event
from localconc._engine.events import subscribers

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

__all__ = ["Event", "read_events", "subscribe"]


def subscribe(callback: Callable[[Event], object]) -> Callable[[], None]:
    """Call a function with each acquisition and release of this process, after the store has recorded it.

    >>> seen = []
    >>> unsubscribe = subscribe(seen.append)

    Args:
        callback: called with each `Event`, in the acquiring or releasing thread, so a slow callback slows that caller.
            Its exceptions are logged (logger `localconc`) and ignored.

    Returns:
        A function that ends the subscription; calling it again does nothing.

    Raises:
        TypeError: the callback can't be called.
    """
    if not callable(callback):
        raise TypeError(f"callback must be callable, not {callback!r}")
    entry = _Subscription(callback)
    subscribers.append(entry)

    def unsubscribe() -> None:
        if entry in subscribers:
            subscribers.remove(entry)

    return unsubscribe


class _Subscription:
    """One subscription, distinct from others of the same callback."""

    def __init__(self, callback: Callable[[Event], object]) -> None:
        self._callback = callback

    def __call__(self, event: Event) -> object:
        return self._callback(event)


def read_events(
    name_or_id: str | UUID | None = None, *, since: datetime | None = None, newest: int | None = None
) -> list[Event]:
    """Read the events of this machine, oldest first. The history keeps the last 10,000 acquisitions.

    >>> read_events("database", newest=10)

    Args:
        name_or_id: of one limit; None for all.
        since: leave out what happened before this moment (a naive one counts as local time).
        newest: only this many of the latest, 0 or more.

    Returns:
        The events.

    Raises:
        LimitNotFoundError: there is no such limit.
        ValueError, TypeError: an argument is out of range.
        StoreError: the database can't be used.
    """
    if newest is not None:
        newest = arguments.whole("newest", newest, 0)
    return registry.keeper().events(arguments.name_or_id(name_or_id), arguments.since(since), newest)
