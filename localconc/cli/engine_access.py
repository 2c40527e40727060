"""All that the command line takes from the engine, beside the public calls. No other module of it knows the engine.

What it gives out is the command line's own: `Snapshot`, `LimitStatus` and `Entry`. They are read in one transaction,
and without pendulum, which takes longer to import than most commands take to run. If a Prefect server keeps the limits,
a snapshot has what the server tells, and says what it does not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from localconc._engine import registry
from localconc._engine.core import arguments, environment, rules, views
from localconc._engine.core.calls import Request, strict_default
from localconc._engine.core.rules import MAX_PAUSE_SECONDS
from localconc._engine.homes.home import DATABASE_NAME, home_source, is_on_server, other_homes
from localconc._engine.liveness.lock_notes import hand_on
from localconc._engine.operations import reading
from localconc._engine.waiting.threads import run
from localconc.errors import LimitNotFoundError, NotSupportedError
from localconc.limits import home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from localconc._engine.operations import doctor
    from localconc._engine.store.rows.ledger import Ledger
    from localconc._engine.store.rows.listings import HolderEntry, WaiterEntry
    from localconc.limits import Holder, Limit
    from localconc.sync import Occupancy

    Finding = doctor.Finding

    #: A limit as files define it: its name, its slots, whether it is enforced, its decay.
    Definition = tuple[str, int, bool, float]

__all__ = [
    "DATABASE_NAME",
    "MAX_PAUSE_SECONDS",
    "Entry",
    "LimitStatus",
    "NotSupportedError",
    "Snapshot",
    "home_source",
    "is_on_server",
    "other_homes",
]

#: What a snapshot of a server's limits says of itself.
UNTOLD = "A Prefect server keeps these limits. It does not tell who holds slots, who waits, or for how long."


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
        source: what `estimate_wait` needs of the engine; None of a server's limit.
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
    source: tuple[Any, float] | None


class Snapshot(NamedTuple):
    """All limits by name at one moment of the wall clock.

    Attributes:
        owner_id: this process's own.
        untold: says that nobody tells who holds and who waits; "" if the snapshot tells it.
    """

    wall: float
    owner_id: int
    limits: list[LimitStatus]
    untold: str = ""


# ---- reading ---------------------------------------------------------------------------------------------------------


def take_snapshot(*, grants: bool = False, reap: bool = True) -> Snapshot:
    """Read who holds and who waits, on all limits.

    Args:
        grants: whether to count recent grants.
        reap: whether to give back first what dead processes held.
    """
    if is_on_server():
        return Snapshot(time.time(), 0, [_server_status(limit) for limit in registry.keeper().read_all()], UNTOLD)
    engine = registry.current()
    if reap:
        reading.notice_deaths(engine)
    found = reading.snapshot(engine, grants=grants)
    return Snapshot(found.wall, engine.membership.owner_id, [_status(each, found) for each in found.limits])


def deadlocks_with(name: str) -> list[str]:
    """Return the circles of requests that wait forever, and for this limit, in words."""
    return [circle.text for circle in reading.deadlocks(registry.current()) if name in circle.names]


def _server_status(limit: Limit) -> LimitStatus:
    """Show a server's limit, which says nothing of its holders and waiters."""
    return LimitStatus(
        id=limit.id,
        name=limit.name,
        limit=limit.limit,
        active=limit.active,
        active_slots=limit.active_slots,
        denied_slots=limit.denied_slots,
        slot_decay_per_second=limit.slot_decay_per_second,
        avg_slot_occupancy_seconds=limit.avg_slot_occupancy_seconds,
        created=limit.created.timestamp(),
        updated=limit.updated.timestamp(),
        paused_until=None,
        configured=True,
        next_slot_seconds=None,
        unowned_slots=0,
        holders=[],
        waiters=[],
        grants_per_second=0.0,
        source=None,
    )


def _status(found: reading.LimitStatus, snapshot: reading.Snapshot) -> LimitStatus:
    row, now = found.limit, snapshot.now
    denied = rules.denied_slots(row.denied, row.denied_at, now, row.decay, row.average)
    owned = sum(entry.slots for entry in found.holders)
    is_paused = row.paused_until is not None and row.paused_until > now
    return LimitStatus(
        id=UUID(bytes=row.uuid),
        name=row.name,
        limit=row.limit,
        active=bool(row.active),
        active_slots=views.active_slots(row, now),
        denied_slots=rules.displayed(denied),
        slot_decay_per_second=row.decay,
        avg_slot_occupancy_seconds=row.average,
        created=row.created,
        updated=row.updated,
        paused_until=snapshot.wall + row.paused_until - now if is_paused and row.paused_until is not None else None,
        configured=bool(row.configured),
        next_slot_seconds=reading.next_slot_seconds(row, now),
        unowned_slots=0 if row.decay > 0 else max(row.held - owned, 0),
        holders=[_holder(entry) for entry in found.holders],
        waiters=[_waiter(entry) for entry in found.waiters],
        grants_per_second=found.grants,
        source=(found, now),
    )


def _holder(entry: HolderEntry) -> Entry:
    numbers = views.numbers(entry.numbers)
    return Entry(
        entry.owner_id,
        entry.pid or None,
        entry.slots,
        entry.thread,
        entry.command,
        entry.label,
        numbers,
        entry.acquired_wall,
    )


def _waiter(entry: WaiterEntry) -> Entry:
    label = Request.from_text(entry.request).label
    return Entry(
        entry.owner_id, entry.pid or None, entry.slots, entry.thread, entry.command, label, (), entry.waiting_since
    )


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


def has_been_released(status: LimitStatus) -> bool:
    """Tell whether the average of a limit comes from releases, rather than from nowhere."""
    return status.source is not None and reading.has_been_released(status.source[0].limit)


def estimate_wait(status: LimitStatus, wall: float, slots: int = 1, before: int | None = None) -> Estimate | None:
    """Estimate how long a request has to wait.

    Args:
        wall: the moment of the snapshot.
        slots: how many slots it asks for.
        before: how many of the waiters are ahead of it; None for all.

    Returns:
        None if there is nothing to estimate from.
    """
    if status.source is None:
        return None
    found, now = status.source
    seconds = reading.expected_wait_seconds(found, now, slots, before)
    if seconds is None:
        return None
    if status.slot_decay_per_second > 0 or seconds <= pause_seconds(status, wall):
        return Estimate(seconds, is_exact=True, is_exceeded=False)
    average = status.avg_slot_occupancy_seconds
    exceeded = bool(status.holders) and all((wall - entry.since) / entry.slots > average for entry in status.holders)
    return Estimate(seconds, is_exact=False, is_exceeded=exceeded)


def missing_names(names: Iterable[str]) -> dict[str, bool]:
    """Find the names that limit nothing because nobody defined them; True for a placeholder, False for none at all."""
    if is_on_server():
        return {name: False for name in names if not _is_on_server_as(name)}

    def work(ledger: Ledger) -> dict[str, bool]:
        rows = {name: ledger.limit_named(name) for name in names}
        return {name: row is not None for name, row in rows.items() if row is None or not row.configured}

    return reading.look(registry.current(), work)


def _is_on_server_as(name: str) -> bool:
    try:
        return registry.keeper().read(name).name == name  # an id would be found, too
    except LimitNotFoundError:
        return False


def check_names(names: list[str]) -> None:
    """Check names before anything is looked up.

    Raises:
        ValueError: no limit can have one of them.
    """
    arguments.limit_names(names)


def limits_are_off() -> bool:
    """Tell whether the environment switches all limits off."""
    return environment.is_disabled()


def is_strict_by_default() -> bool:
    """Tell whether the environment makes calls strict that don't say so themselves."""
    return strict_default()


def names_for_completion() -> list[str]:
    """List the limits by name; makes no store if there is none."""
    if not is_on_server() and not (home() / DATABASE_NAME).exists():
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
    """Create or update limits in one transaction: all of them, or none.

    Raises:
        StoreError: a server, which has no such transaction, refused one; it says how far it came.
    """
    return registry.keeper().ensure_all(definitions)


def reset(limit_id: UUID) -> list[Holder]:
    """Forget every holder of a limit; return those that are known."""
    return registry.keeper().reset(limit_id)


# ---- slots that a command is to hold ---------------------------------------------------------------------------------


def descriptor_to_hand_on() -> int | None:
    """Return the descriptor that proves that this process lives; a command that inherits it keeps the slots held.

    Returns:
        None if no slot is held, because limits are off, missing or disabled; of a server, whose lease ends by itself.
    """
    if is_on_server():
        return None
    engine = registry.current()
    owner = engine.membership.owner
    if owner is None or not engine.holdings.grants:
        return None
    hand_on(owner.descriptor)
    return owner.descriptor


def slot_numbers(occupancy: Occupancy) -> tuple[int, ...]:
    """Number the held slots; () if the limit is not enforced.

    Raises:
        ValueError: the limit decays, or there are several.
        NotSupportedError: a server keeps the limit.
    """
    return occupancy.numbers


def become_command(pid: int, command: str) -> None:
    """Let a command hold what this process holds: others see it as the holder, and the slots come back when it ends."""
    engine = registry.current()
    run(engine, lambda: engine.become_command(pid, command))


# ---- homes, servers, and the doctor ----------------------------------------------------------------------------------


def server_address() -> str:
    """Return the address of the server that keeps the limits, without credentials.

    Raises:
        StoreError: Prefect is not installed, or its settings name no server.
    """
    from localconc._prefect import server_address

    return server_address()


def examine() -> list[Finding]:
    """Look at everything about the home, or at the server; changes nothing."""
    from localconc._engine.operations import doctor

    if not is_on_server():
        return doctor.examine(home())
    from localconc._prefect.doctor import examine as examine_server

    return [doctor.Finding(found.check, found.state, found.text, found.remedy) for found in examine_server()]


def check_can_repair() -> None:
    """Refuse to repair a server.

    Raises:
        NotSupportedError: a server keeps the limits.
    """
    registry.refuse_server("localconc doctor --repair")


def repair(put_in_order: Callable[[Any], None]) -> None:
    """Carry out the repair of a finding."""
    put_in_order(registry.current())
