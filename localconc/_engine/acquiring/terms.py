"""The outcomes of a try besides a grant, with the terms on which a caller waits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.core.clock import Mailbox
    from localconc._engine.core.records import LimitRef, Requester
    from localconc._engine.queue.explain import Reason


class WaitTerms(NamedTuple):
    """How a caller waits, if it has to.

    Attributes:
        mailbox: where its wakeups are to come.
        has_end: whether it waits with a time-out, or with retries.
        needs_estimate: whether it goes by `retry_after`, which the fast statements don't tell.
        stops: the threads and tasks of this process that hold something and can't go on while it waits.
        generation: which store the process had joined before the request was queued (`Membership.generation`).
    """

    mailbox: Mailbox
    has_end: bool
    needs_estimate: bool
    stops: tuple[int, ...]
    generation: int


#: Makes terms from a tuple of all fields. It is C, while a call of `WaitTerms` is Python.
new_terms: Callable[[tuple[Mailbox, bool, bool, tuple[int, ...], int]], WaitTerms] = partial(tuple.__new__, WaitTerms)


class Queued(NamedTuple):
    """A request that was queued.

    Attributes:
        ticket: its place in the order of arrival.
        secret: the number by which a wakeup proves the grant; 0 if the process has to look at the store.
        requester: its owner and serial.
        refs: the limits that it was queued on.
        terms: how its caller waits.
        is_simple: whether its row goes with the grant; else its process has to accept the outcome.
        enqueued_boot: when it was queued.
        due_at: when it can be admitted, if it only waits for a moment.
        retry_after: after how many seconds a retry is worth while.
    """

    ticket: int
    secret: int
    requester: Requester
    refs: tuple[LimitRef, ...]
    terms: WaitTerms
    is_simple: bool
    enqueued_boot: float
    due_at: float | None
    retry_after: float


#: Makes one likewise.
new_queued: Callable[
    [tuple[int, int, Requester, tuple[LimitRef, ...], WaitTerms, bool, float, float | None, float]], Queued
] = partial(tuple.__new__, Queued)


class Refused(NamedTuple):
    """A request that was neither admitted nor queued. Its reason has the first few holders of each limit."""

    reason: Reason
    limit_ids: list[int]


class Deadlocked(NamedTuple):
    """A request that was not queued, because it would have waited for something that its own caller holds.

    Attributes:
        text: the circle, in words.
        owner_ids: the processes that wait in it or behind it; if one of them is dead, there may be no circle.
    """

    text: str
    owner_ids: tuple[int, ...]
