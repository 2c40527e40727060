"""Deadlocks: requests that could only be admitted after their own callers have released something.

The rule is exact. Assume that every caller that does not wait releases all that it holds, that every request that can
be admitted then is, and its caller releases as well, and so on: the requests that are left wait forever. Requests with
an end (a time-out, retries) are left out, and so are limits with decay and limits of 0 slots: they pass.
"""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from localconc._engine.core.arguments import printable
from localconc._engine.core.calls import Request
from localconc._engine.store.rows import endless, listings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from localconc._engine.store.rows.ledger import Ledger

#: A thread or task: its owner, and the number that identifies it in that process.
Context = tuple[int, int]


class Waiting(NamedTuple):
    """A request without an end, with the contexts that hold something and can't continue while it waits."""

    ticket: int
    owner_id: int
    contexts: tuple[Context, ...]
    slots: int
    limit_ids: tuple[int, ...]
    caller: str
    request: str

    @property
    def names(self) -> tuple[str, ...]:
        """The limits that it asks for."""
        return Request.from_text(self.request).names

    @property
    def caller_with_label(self) -> str:
        """The caller, with the label of its request."""
        return f"{self.caller}{label_text(Request.from_text(self.request).label)}"


class Held(NamedTuple):
    """Slots of one limit that a thread or task holds and no other one can release."""

    limit_id: int
    context: Context
    slots: int
    name: str
    since: str
    label: str = ""
    thread: str = ""


def find_stuck(waiting: Iterable[Waiting], held: Iterable[Held], sizes: Mapping[int, int]) -> list[Waiting]:
    """Return the requests that wait forever, in the order of arrival.

    It takes time in proportion to the requests and holds, since all other processes wait for the store meanwhile.

    Args:
        waiting: the requests without an end.
        held: what their contexts hold of the limits.
        sizes: the slots of each limit that counts; others pass.
    """
    left = {each.ticket: each for each in sorted(waiting)}
    stopped = Counter(context for each in left.values() for context in each.contexts)
    holds: dict[Context, list[Held]] = {}
    kept: Counter[int] = Counter()
    for hold in held:
        if hold.context in stopped:
            holds.setdefault(hold.context, []).append(hold)
            kept[hold.limit_id] += hold.slots
    queues: dict[int, deque[Waiting]] = {limit_id: deque() for limit_id in sizes}
    for each in left.values():
        for limit_id in queues.keys() & each.limit_ids:
            queues[limit_id].append(each)
    pending = list(left.values())
    while pending:
        request = pending.pop()
        if request.ticket not in left or not _can_be_admitted(request, queues, kept, sizes):
            continue
        del left[request.ticket]
        changed = queues.keys() & request.limit_ids
        for limit_id in changed:
            queues[limit_id].popleft()
        stopped.subtract(request.contexts)
        for hold in (hold for context in request.contexts if not stopped[context] for hold in holds.get(context, ())):
            kept[hold.limit_id] -= hold.slots
            changed.add(hold.limit_id)
        pending += [queues[limit_id][0] for limit_id in changed if queues.get(limit_id)]
    return list(left.values())


def _can_be_admitted(
    request: Waiting, queues: Mapping[int, deque[Waiting]], kept: Mapping[int, int], sizes: Mapping[int, int]
) -> bool:
    """Return whether a request is first in its queues, with enough slots beside those that are kept."""
    for limit_id in queues.keys() & request.limit_ids:
        if queues[limit_id][0] is not request:
            return False
        if kept[limit_id] + request.slots > sizes[limit_id]:
            return False
    return True


def may_be_stuck(
    request: Waiting,
    holding: Callable[[int], Collection[Context]],
    queued_with: Callable[[int], Collection[int]],
    stopped: Callable[[], Collection[Context]],
) -> bool:
    """Return False if a request surely does not wait forever, without a look at all others.

    It depends on the holders of its limits, on the requests that are queued there, and so on through the other limits
    of those. If no caller that is stopped holds any of these limits, each of these requests is served in turn.

    Args:
        holding: returns what holds slots of a limit.
        queued_with: returns the limits of all requests that are queued on a limit.
        stopped: returns what the other requests stop.
    """
    found: set[Context] = set()
    seen: set[int] = set()
    more = set(request.limit_ids)
    while more:
        seen |= more
        found.update(*map(holding, more))
        more = set[int]().union(*map(queued_with, more)) - seen
    if not found.isdisjoint(request.contexts):
        return True
    return bool(found) and not found.isdisjoint(stopped())


def circle_of(
    request: Waiting, stuck: Sequence[Waiting], held: Sequence[Held], sizes: Mapping[int, int]
) -> list[Waiting]:
    """Return a circle of requests, each of which waits for the next one, that a stuck request leads into."""
    path: list[Waiting] = []
    current: Waiting | None = request
    while current is not None and current not in path:
        path.append(current)
        current = _waits_for(current, stuck, held, sizes)
    return path if current is None else path[path.index(current) :]


def _waits_for(
    request: Waiting, stuck: Sequence[Waiting], held: Sequence[Held], sizes: Mapping[int, int]
) -> Waiting | None:
    """Return the request of the caller that holds what another one waits for, or that is ahead of it in a queue."""
    callers = {context: each for each in reversed(stuck) for context in each.contexts}
    for limit_id in request.limit_ids:
        kept = [each for each in held if each.limit_id == limit_id and each.context in callers]
        if kept and sum(each.slots for each in kept) + request.slots > sizes[limit_id]:
            return callers[kept[0].context]
    ahead = (each for each in stuck if each.ticket < request.ticket and set(each.limit_ids) & set(request.limit_ids))
    return next(ahead, None)


def described(circle: Sequence[Waiting], held: Sequence[Held]) -> str:
    """Return a circle in words: what each caller holds, since when, and what it waits for."""
    return "; ".join(_described(each, held) for each in circle)


def _described(request: Waiting, held: Sequence[Held]) -> str:
    holds = [
        f"{each.name!r} ({each.slots} slot(s){label_text(each.label)} since {each.since}{_by_another(each, request)})"
        for each in held
        if each.context in request.contexts
    ]
    wanted = ", ".join(map(repr, request.names))
    has = f" holds {', '.join(dict.fromkeys(holds))} and" if holds else ""
    return f"{request.caller_with_label}{has} waits for {request.slots} slot(s) of {wanted}"


def _by_another(hold: Held, request: Waiting) -> str:
    """Return who holds slots, if it is another task that the caller stops: it blocks the thread of their loop."""
    name = printable(hold.thread)
    return "" if request.caller.endswith((f", {name}", f"({name})")) else f" by {name}, which can't go on meanwhile"


def label_text(label: str) -> str:
    """Return a label as it follows what it is about; "" without one."""
    return f" {label!r}" if label else ""


# ---- from the rows -----------------------------------------------------------------------------------------------


def needs_search(ledger: Ledger, request: Waiting) -> bool:
    """Return whether a request that is about to be queued may be stuck, by the rows of its limits."""
    connection = ledger.connection
    return may_be_stuck(
        request,
        partial(endless.holding, connection),
        partial(endless.queued_with, connection),
        partial(endless.stopped, connection),
    )


class Situation(NamedTuple):
    """All requests without an end, with what their contexts hold."""

    waiting: list[Waiting]
    held: list[Held]
    sizes: dict[int, int]


def situation(ledger: Ledger, more: Iterable[Waiting] = ()) -> Situation:
    """Read the requests without an end, and what stands in their way.

    A limit that is paused counts as it will once the pause is over.

    Args:
        more: requests that are about to be queued.
    """
    connection = ledger.connection
    waiting = [_waiting(entry) for entry in endless.waiters(connection)]
    waiting += more
    rows = ledger.limits_with_ids(sorted({limit_id for each in waiting for limit_id in each.limit_ids}))
    sizes = {row.id: row.limit for row in rows if row.decay == 0 and row.limit > 0}
    stopped = {context for each in waiting for context in each.contexts}
    held = [
        Held(
            entry.limit_id,
            (entry.owner_id, entry.context),
            entry.slots,
            entry.name,
            entry.shown_since(),
            entry.label,
            entry.thread,
        )
        for limit_id in sorted(sizes)
        for entry in listings.holders(connection, limit_id)
        if (entry.owner_id, entry.context) in stopped
    ]
    return Situation(waiting, held, sizes)


def _waiting(entry: endless.EndlessWaiter) -> Waiting:
    contexts = tuple((entry.owner_id, int(context)) for context in entry.stops.split(",") if context)
    caller = f"pid {entry.pid}, {printable(entry.thread)}"
    return Waiting(entry.ticket, entry.owner_id, contexts, entry.slots, entry.queued_on, caller, entry.request)


class Circle(NamedTuple):
    """Requests that wait for each other forever: the limits that they wait for, and the circle in words."""

    names: frozenset[str]
    text: str


def circles(ledger: Ledger) -> list[Circle]:
    """Return every circle of requests that wait forever."""
    found = situation(ledger)
    stuck = find_stuck(found.waiting, found.held, found.sizes)
    found_circles: list[Circle] = []
    told: set[int] = set()
    for request in stuck:
        circle = circle_of(request, stuck, found.held, found.sizes)
        tickets = frozenset(each.ticket for each in circle)
        if not tickets & told:
            told |= tickets
            names = frozenset(name for each in circle for name in each.names)
            found_circles.append(Circle(names, described(circle, found.held)))
    return found_circles
