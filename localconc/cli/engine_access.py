"""All that the command line takes from the engine, beside the public calls. No other module of it knows the engine.

What it gives out is the command line's own: `Snapshot`, `LimitStatus` and `Entry`. They are read in one transaction,
and without pendulum, which takes longer to import than most commands take to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from localconc import errors
from localconc._engine import arguments, homes, rules
from localconc._engine.blocking import run as run_now
from localconc._engine.description import active_slots
from localconc._engine.home import DATABASE_NAME
from localconc.limits import home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from localconc._engine import examination
    from localconc._engine.overview import Claim, Overview, Standing
    from localconc.limits import Limit
    from localconc.sync import Occupancy

    Finding = examination.Finding

    #: A limit as files define it: its name, its slots, whether it is enforced, its decay.
    Definition = tuple[str, int, bool, float]

__all__ = ["DATABASE_NAME", "Entry", "LimitStatus", "NotSupportedError", "Snapshot"]

#: Raised where a server keeps the limits that can't do what was asked; an engine that knows no server never raises it.
NotSupportedError: type[Exception] = getattr(errors, "NotSupportedError", ValueError)


class Entry(NamedTuple):
    """Slots that a thread or task holds, or waits for.

    Attributes:
        owner_id: of the process, in the store.
        since: when they were acquired, or when the wait began, on the wall clock.
    """

    owner_id: int
    pid: int | None
    slots: int
    thread: str
    command: str
    label: str
    numbers: tuple[int, ...]
    since: float


class LimitStatus(NamedTuple):
    """A limit with the fields of the public `Limit`, and its holders and waiters in the order in which they came.

    Attributes:
        configured: False for a placeholder, which a call made that named a missing limit.
        next_slot_seconds: in how many seconds one more slot has decayed; None without decay, or if all are free.
        unowned_slots: occupied slots that no process holds, as `--active-slots` makes them; 0 with decay.
        grants_per_second: recent grants, if the snapshot was asked for them.
        source: what `estimate_wait` needs of the engine.
    """

    id: UUID
    name: str
    limit: int
    active: bool
    active_slots: int
    denied_slots: int
    slot_decay_per_second: float
    avg_slot_occupancy_seconds: float
    created: float
    updated: float
    paused_until: float | None
    configured: bool
    next_slot_seconds: float | None
    unowned_slots: int
    holders: list[Entry]
    waiters: list[Entry]
    grants_per_second: float
    source: tuple[Any, float]


class Snapshot(NamedTuple):
    """All limits by name at one moment of the wall clock; `owner_id` is this process's own."""

    wall: float
    owner_id: int
    limits: list[LimitStatus]


# ---- reading ---------------------------------------------------------------------------------------------------------


def take_snapshot(*, grants: bool = False, reap: bool = True) -> Snapshot:
    """Read who holds and who waits, on all limits.

    Args:
        grants: whether to count recent grants.
        reap: whether to give back first what dead processes held.
    """
    from localconc._engine.overview import notice_deaths, overview

    engine = homes.current()
    if reap:
        notice_deaths(engine)
    everything = overview(engine, grants=grants)
    return Snapshot(everything.wall, engine.owner_id, [_status(found, everything) for found in everything.standings])


def _status(found: Standing, everything: Overview) -> LimitStatus:
    from localconc._engine.overview import next_slot_seconds

    row, now = found.limit, everything.now
    denied = rules.denied_slots(row.denied, row.denied_at, now, row.decay, row.average)
    owned = sum(claim.slots for claim in found.holders)
    return LimitStatus(
        id=UUID(bytes=row.uuid),
        name=row.name,
        limit=row.limit,
        active=bool(row.active),
        active_slots=active_slots(row, now),
        denied_slots=rules.displayed(denied),
        slot_decay_per_second=row.decay,
        avg_slot_occupancy_seconds=row.average,
        created=row.created,
        updated=row.updated,
        paused_until=getattr(row, "paused_until", None),
        configured=bool(row.configured),
        next_slot_seconds=next_slot_seconds(row, now),
        unowned_slots=0 if row.decay > 0 else max(row.held - owned, 0),
        holders=[_entry(claim) for claim in found.holders],
        waiters=[_entry(claim) for claim in found.waiters],
        grants_per_second=found.grants,
        source=(found, now),
    )


def _entry(claim: Claim) -> Entry:
    label, numbers = getattr(claim, "label", None) or "", getattr(claim, "numbers", ())
    thread, command = claim.thread or "", claim.command or ""
    return Entry(claim.owner_id, claim.pid, claim.slots, thread, command, label, tuple(numbers), claim.since)


def pause_seconds(status: LimitStatus, wall: float) -> float:
    """Return how long a pause of the limit still lasts; 0 for none."""
    return 0.0 if status.paused_until is None else max(status.paused_until - wall, 0.0)


class Estimate(NamedTuple):
    """How long a request has to wait.

    Attributes:
        seconds: 0 if it would be admitted at once.
        is_exact: it follows from the decay, not from an average.
        is_exceeded: every holder has held its slots for longer than the average by which the wait was estimated.
    """

    seconds: float
    is_exact: bool
    is_exceeded: bool


def estimate_wait(status: LimitStatus, wall: float, slots: int = 1, before: int | None = None) -> Estimate | None:
    """Estimate how long a request has to wait.

    Args:
        wall: the moment of the snapshot.
        slots: how many slots it asks for.
        before: how many of the waiters are ahead of it; None for all.

    Returns:
        None if there is nothing to estimate from.
    """
    from localconc._engine.overview import expected_wait_seconds

    found, now = status.source
    seconds = expected_wait_seconds(found, now, slots, before)
    if seconds is None:
        return None
    if not seconds or status.slot_decay_per_second > 0:
        return Estimate(seconds, is_exact=True, is_exceeded=False)
    average = status.avg_slot_occupancy_seconds
    nobody_released_yet = average == rules.INITIAL_AVERAGE_OCCUPANCY_SECONDS
    kept_out_by_an_operator = status.unowned_slots + slots > status.limit
    if nobody_released_yet or kept_out_by_an_operator:
        return None
    exceeded = bool(status.holders) and all((wall - entry.since) / entry.slots > average for entry in status.holders)
    return Estimate(seconds, is_exact=False, is_exceeded=exceeded)


def missing_names(names: Iterable[str]) -> dict[str, bool]:
    """Find the names that limit nothing because nobody defined them; True for a placeholder, False for none at all."""

    def work(ledger: Any) -> dict[str, bool]:
        rows = {name: ledger.limit_named(name) for name in names}
        return {name: row is not None for name, row in rows.items() if row is None or not row.configured}

    engine = homes.current()
    return run_now(engine, lambda: engine.look_up(work))


def check_names(names: list[str]) -> None:
    """Check names before anything is looked up.

    Raises:
        ValueError: no limit can have one of them.
    """
    arguments.limit_names(names)


def limits_are_off() -> bool:
    """Tell whether the environment switches all limits off."""
    return homes.is_disabled()


def names_for_completion() -> list[str]:
    """List the limits by name; makes no store if there is none."""
    if not (home() / DATABASE_NAME).exists():
        return []
    return [status.name for status in take_snapshot(reap=False).limits]


# ---- definitions -----------------------------------------------------------------------------------------------------


def checked_definition(name: Any, limit: Any, active: bool, slot_decay_per_second: Any) -> Definition:
    """Check a definition that a file holds.

    Raises:
        ValueError, TypeError: a field is out of range; the message names it and the value.
    """
    return (
        arguments.limit_name("name", name),
        arguments.whole("limit", limit, 0),
        active,
        arguments.decay(slot_decay_per_second),
    )


def ensure_all(definitions: list[Definition]) -> list[Limit]:
    """Create or update limits in one transaction: all of them, or none."""
    from localconc._engine import administration

    return administration.ensure_all(homes.current(), definitions)


# ---- slots that a command is to hold ---------------------------------------------------------------------------------


def holds_something(occupancy: Occupancy) -> bool:
    """Tell whether any slot is held; none is if limits are off, missing or disabled."""
    return occupancy.engine is not None and bool(occupancy.engine.held)


def slot_numbers(occupancy: Occupancy) -> tuple[int, ...]:
    """Number the held slots; () if the limit is not enforced.

    Raises:
        ValueError: the limit decays, or there are several.
    """
    numbers: tuple[int, ...] = getattr(occupancy, "numbers", ())
    return numbers


def owner_descriptor(occupancy: Occupancy) -> int | None:
    """The descriptor whose lock proves that the holder lives; a command that inherits it keeps the slots held."""
    engine = occupancy.engine
    return None if engine is None or engine.owner is None else engine.owner.descriptor


def become_command(occupancy: Occupancy, pid: int, command: str) -> None:
    """Let a command hold the slots: others see it as the holder, and they come back when it ends."""
    engine = occupancy.engine
    if engine is not None:
        run_now(engine, lambda: engine.become_command(pid, command))


# ---- the doctor ------------------------------------------------------------------------------------------------------


def examine(directory: Path) -> list[Finding]:
    """Look at everything about a home; changes nothing."""
    from localconc._engine import examination

    return examination.examine(directory)


def repair(put_in_order: Callable[[Any], None]) -> None:
    """Carry out the repair of a finding."""
    put_in_order(homes.current())
