"""The way of one call into its limits, step by step, without saying how to pause.

`acquire` and `give_back` are generators: they do one thing that never blocks, and yield a `Nap` or a `Sleep` where
they would wait. A thread drives them by sleeping, a task by awaiting; the way itself is written once.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from localconc._engine.answers import Refused, Waiting
from localconc._engine.faults import Busy, Damaged
from localconc._engine.net import Claim
from localconc._engine.wakeup import (
    FAR_BEHIND_FACTOR,
    OVERDUE_SECONDS,
    QUICK_POLL_SECONDS,
    SLOW_POLL_SECONDS,
    Signal,
)
from localconc.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.answers import Outlook
    from localconc._engine.engine import Engine
    from localconc._engine.model import Party, Request
    from localconc._engine.occupancy import Occupancy
    from localconc._engine.wakeup import Mailbox

Result = TypeVar("Result")

#: Pauses between attempts on a store that another process is writing to: it is done in tens of microseconds. They grow
#: with the time that it has been busy, for where a hundred want it at once, they must not keep the processors from the
#: one who has it; but slowly, for who comes later would pass by who sleeps.
SHORTEST_NAP_SECONDS = 0.00005
NAP_GROWTH = 1.5
LONGEST_NAP_SECONDS = 0.0005
LONGEST_NAP_SHARE = 1 / 16
LONGEST_NAP_HELD_UP_SECONDS = 0.01

#: A time-out shorter than this still waits so long for the store itself, which is busy for microseconds at a time.
STORE_PATIENCE_SECONDS = 0.05

#: How long a call without a time-out of its own (setting a limit, or trying once) waits for the store.
STORE_TIMEOUT_SECONDS = 10.0

#: Most waits are shorter than this; only longer ones are worth watching the others' lives for.
WATCH_AFTER_SECONDS = 0.01

#: How long leaving a block waits for a store that is held up, before the slots are given back in the background.
GIVE_BACK_PATIENCE_SECONDS = 5.0

#: How often a store that is found damaged again and again is healed by one call.
MOST_HEALINGS = 2


class Nap(NamedTuple):
    """Pause for a moment: the store is busy. `until`, on the engine's clock, is when to give up at the latest."""

    seconds: float
    until: float | None


class Sleep(NamedTuple):
    """Pause until a moment on the engine's clock, or until told; `ticket` is what is waited for."""

    until: float | None
    ticket: int


#: The steps of a way: they yield pauses, are sent the signals that came meanwhile, and return how it ended.
Steps = Generator[Nap | Sleep, list[Signal] | None, Result]


class StoreHeldUp(Exception):
    """The store stayed busy until the deadline."""


def insist(engine: Engine, operation: Callable[[], Result], deadline: float | None) -> Steps[Result]:
    """Try an operation until the store is free for it; heal a damaged store on the way.

    Raises:
        StoreHeldUp: not within the deadline.
        StoreError: the store can't be used.
    """
    seconds = SHORTEST_NAP_SECONDS
    healings = 0
    is_damaged = False
    busy_since = patience = None
    while True:
        try:
            if is_damaged:
                engine.heal()
                is_damaged = False
            return operation()
        except Busy:
            now = engine.clock.now()
            busy_since = busy_since or now
            if deadline is not None:
                patience = patience or max(deadline, now + STORE_PATIENCE_SECONDS)
                if now >= patience:
                    raise StoreHeldUp from None
            yield Nap(seconds, patience)
            longest = max(LONGEST_NAP_SECONDS, (now - busy_since) * LONGEST_NAP_SHARE)
            seconds = min(seconds * NAP_GROWTH, longest, LONGEST_NAP_HELD_UP_SECONDS)
        except Damaged as damage:
            healings += 1
            if healings > MOST_HEALINGS:
                raise StoreError(
                    f"The database {engine.database.path} is damaged ({damage}) and could not be healed: move it away."
                ) from damage
            is_damaged = True


def acquire(
    engine: Engine,
    request: Request,
    thread: str,
    timeout_seconds: float | None,
    max_retries: int | None,
    mailbox: Callable[[], Mailbox],
    *,
    polls: bool,
    begun: float | None = None,
) -> Steps[Occupancy]:
    """Acquire what is requested.

    Args:
        thread: name of the thread or task.
        mailbox: gives the mailbox to be told by, once there is something to wait for.
        polls: whether this way looks by itself now and then; False where something else looks for many.
        begun: when the caller began to wait, if that was before now.
    """
    begun = engine.clock.now() if begun is None else begun
    deadline = None if timeout_seconds is None else begun + timeout_seconds
    tries_until = deadline if max_retries is None or deadline is not None else begun + STORE_TIMEOUT_SECONDS
    polls = polls and not engine.is_alone
    party: Party | None = None
    claim = Claim()
    try:
        yield from insist(engine, engine.database.ensure_open, tries_until)
        party = engine.new_party(thread)
        engine.nets.guard(party.serial, claim)
        may_wait = timeout_seconds != 0 and max_retries != 0
        answer = yield from _ask(engine, request, party, mailbox if may_wait else None, tries_until)
        if isinstance(answer, Refused):
            raise (
                _out_of_time(timeout_seconds, answer.reason) if timeout_seconds == 0 else _out_of_retries(answer.reason)
            )
        if isinstance(answer, Waiting):
            answer = yield from _wait(engine, request, answer, begun, timeout_seconds, max_retries, polls)
    except BaseException as error:
        if party is not None:
            engine.abandon(party.serial)
        if isinstance(error, StoreHeldUp):
            held = f"the database {engine.database.path} was held by another process all the while (is it stopped?)"
            raise (_out_of_retries(held) if timeout_seconds is None else _out_of_time(timeout_seconds, held)) from None
        raise
    return answer


def _ask(
    engine: Engine,
    request: Request,
    party: Party,
    mailbox: Callable[[], Mailbox] | None,
    deadline: float | None,
) -> Steps[Occupancy | Waiting | Refused]:
    answer = yield from insist(engine, lambda: engine.ask(request, party, mailbox), deadline)
    if isinstance(answer, Refused):
        # Nobody may be waiting who would have noticed that a holder died: look before saying no.
        limit_ids = answer.limit_ids
        if (yield from insist(engine, lambda: engine.reap_in_front(limit_ids), deadline)):
            answer = yield from insist(engine, lambda: engine.ask(request, party, mailbox, is_first=False), deadline)
    return answer


def _wait(
    engine: Engine,
    request: Request,
    waiting: Waiting,
    begun: float,
    timeout_seconds: float | None,
    max_retries: int | None,
    polls: bool,
) -> Steps[Occupancy]:
    """Stay in the queue until the request is answered, the deadline passes, or the retries are used up."""
    deadline = None if timeout_seconds is None else begun + timeout_seconds
    retry_at = None if max_retries is None else begun + waiting.retry_after
    retries_left = max_retries or 0
    watch_at: float | None = begun + WATCH_AFTER_SECONDS if polls else None
    poll_at = None
    decays = waiting.decays
    while True:
        look = partial(engine.look, waiting, closely=decays)
        outlook: Outlook = yield from insist(engine, look, deadline)
        if outlook.answered is not None:
            return engine.receive(request, waiting, outlook.answered, engine.clock.now() - begun)
        now = engine.clock.now()
        if outlook.due_at is not None and now >= outlook.due_at:
            yield from insist(engine, partial(engine.hand_over, outlook.limit_ids), deadline)
            continue
        if deadline is not None and now >= deadline:
            reason = yield from insist(engine, lambda: engine.withdraw(waiting), deadline)
            raise _out_of_time(timeout_seconds, reason)
        if retry_at is not None and now >= retry_at:
            retries_left -= 1
            retry_at = now + (yield from _retry(engine, request, waiting, deadline, is_last=retries_left <= 0))
            continue  # the store may have been busy meanwhile: nobody sleeps who has not just looked
        if watch_at is not None and now >= watch_at:
            watch_at = None
            yield from insist(engine, engine.start_watching, deadline)
            poll_at = now + poll_seconds(engine, waiting)
        elif polls and watch_at is None and engine.watch.has_news:
            yield from insist(engine, engine.reap_suspects, deadline)
            continue
        if poll_at is not None and now >= poll_at:
            poll_at = now + poll_seconds(engine, waiting)
            next_due = yield from _poll(engine, outlook, decays, deadline)
            if next_due is not None:  # who was first in line is stopped, and the next may be, too
                poll_at = min(poll_at, next_due + OVERDUE_SECONDS)
            continue
        if polls and poll_at is None:
            poll_at = now + poll_seconds(engine)
        moments = [at for at in (deadline, retry_at, outlook.due_at, watch_at, poll_at) if at is not None]
        until = min(moments, default=None)
        signals = yield Sleep(until, waiting.ticket)
        admitted = engine.receive_signal(request, waiting, signals, engine.clock.now() - begun) if signals else None
        if admitted is not None:
            return admitted
        if until is None or engine.clock.now() < until:
            decays = True  # told, perhaps of a limit that has changed: it may decay by now


def _retry(
    engine: Engine, request: Request, waiting: Waiting, deadline: float | None, *, is_last: bool
) -> Steps[float]:
    """Count one more refused attempt; returns after how many seconds the next one is worth while."""
    retry_after = yield from insist(engine, lambda: engine.deny(request, waiting), deadline)
    if is_last:
        reason = yield from insist(engine, lambda: engine.withdraw(waiting), deadline)
        raise _out_of_retries(reason)
    return retry_after


def _poll(engine: Engine, outlook: Outlook, decays: bool, deadline: float | None) -> Steps[float | None]:
    """Act for those who should, but are stopped, or died unwatched; returns when that is to be done again."""
    yield from insist(engine, engine.database.ensure_open, deadline)
    next_due, limit_ids = None, outlook.limit_ids
    if decays:
        next_due = yield from insist(engine, lambda: engine.hand_over_for_others(limit_ids), deadline)
    if outlook.newest_owner_id > engine.watch.newest_owner_id:
        yield from insist(engine, engine.start_watching, deadline)
    if not engine.watches_everybody:
        yield from insist(engine, lambda: engine.reap_in_front(limit_ids), deadline)
    return next_due


def poll_seconds(engine: Engine, waiting: Waiting | None = None) -> float:
    """How often to look without having been told: less often while many are in front, who look as well."""
    if not engine.watches_everybody:
        return QUICK_POLL_SECONDS
    far_behind = waiting is not None and engine.is_far_behind(waiting)
    return SLOW_POLL_SECONDS * (FAR_BEHIND_FACTOR if far_behind else 1)


def give_back(engine: Engine, occupancy: Occupancy) -> Steps[None]:
    """Give slots back; if the store does not allow it in time, the background does. Never fails, never loses any."""
    try:
        deadline = engine.clock.now() + GIVE_BACK_PATIENCE_SECONDS
        yield from insist(engine, partial(engine.give_back, occupancy), deadline)
    except (StoreHeldUp, StoreError) as error:
        engine.give_back_later(occupancy.serial)
        engine.report_late_give_back(error)
    except BaseException:
        engine.abandon(occupancy.serial)
        raise


def _out_of_time(timeout_seconds: float | None, reason: str) -> Exception:
    return AcquireConcurrencySlotTimeoutError(
        f"Attempt to acquire concurrency slots timed out after {timeout_seconds} second(s): {reason}"
    )


def _out_of_retries(reason: str) -> Exception:
    return ConcurrencySlotAcquisitionError(f"Not admitted, and no retries are left: {reason}")
