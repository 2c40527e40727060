"""Setting and reading limits: the operations behind `localconc.limits`, the command line and the examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from localconc._engine import admission, definitions, event, rules
from localconc._engine.blocking import run
from localconc._engine.description import active_slots
from localconc._engine.model import Request, Share
from localconc._engine.subscribers import ACQUIRED, RELEASED
from localconc._engine.views import Holder, Limit, Waiter, moment
from localconc.errors import LimitExistsError, LimitNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from localconc._engine.engine import Engine
    from localconc._engine.event import Event
    from localconc._engine.ledger import Ledger
    from localconc._engine.model import Acquisition, LimitRow
    from localconc._engine.turn import Turn

Result = TypeVar("Result")


def shown(row: LimitRow, now: float) -> Limit:
    """A limit as people see it at a moment."""
    denied = rules.denied_slots(row.denied, row.denied_at, now, row.decay, row.average)
    return Limit(
        id=UUID(bytes=row.uuid),
        name=row.name,
        limit=row.limit,
        active=bool(row.active),
        active_slots=active_slots(row, now),
        denied_slots=rules.displayed(denied),
        slot_decay_per_second=row.decay,
        avg_slot_occupancy_seconds=row.average,
        created=moment(row.created),
        updated=moment(row.updated),
    )


def find(ledger: Ledger, name_or_id: str | UUID) -> LimitRow:
    """The row of a limit by name or id; a text that is the id of one and the name of none counts as the id."""
    row = None
    if isinstance(name_or_id, UUID):
        row = ledger.limit_with_uuid(name_or_id.bytes)
    elif isinstance(name_or_id, str):
        row = ledger.limit_named(name_or_id)
        if row is None:
            row = _with_id_text(ledger, name_or_id)
    else:
        raise TypeError(f"name_or_id must be a string or a UUID, not {name_or_id!r}")
    if row is None:
        raise LimitNotFoundError(f"There is no limit {str(name_or_id)!r}.")
    return row


def _with_id_text(ledger: Ledger, text: str) -> LimitRow | None:
    try:
        return ledger.limit_with_uuid(UUID(text).bytes)
    except ValueError:
        return None


# ---- setting ---------------------------------------------------------------------------------------------------------


def create(engine: Engine, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit:
    def work(turn: Turn) -> Limit:
        row = turn.ledger.limit_named(name)
        if row is not None and row.configured:
            raise LimitExistsError(
                f"The limit {name!r} exists already, with limit={row.limit}: change it with update_limit, or use "
                "ensure_limit."
            )
        return _put(turn, row, name, limit, active, decay, active_slots)

    return _in_turn(engine, work)


def ensure(engine: Engine, name: str, limit: int, *, active: bool, decay: float) -> Limit:
    def work(turn: Turn) -> Limit:
        row = turn.ledger.limit_named(name)
        if row is not None and (row.configured, row.limit, bool(row.active), row.decay) == (
            True,
            limit,
            active,
            decay,
        ):
            return shown(row, turn.now)
        return _put(turn, row, name, limit, active, decay, 0)

    return _in_turn(engine, work)


def ensure_all(engine: Engine, wanted: Iterable[tuple[str, int, bool, float]]) -> list[Limit]:
    """Create or update many limits (name, limit, active, decay) in one transaction: all, or none."""

    def work(turn: Turn) -> list[Limit]:
        return [
            _put(turn, turn.ledger.limit_named(name), name, limit, active, decay, 0)
            for name, limit, active, decay in wanted
        ]

    return _in_turn(engine, work)


def _put(
    turn: Turn, row: LimitRow | None, name: str, limit: int, active: bool, decay: float, active_slots: int
) -> Limit:
    if row is None:
        row = definitions.define(turn, name, limit=limit, active=active, configured=True, decay=decay)
    else:
        new = row._replace(limit=limit, active=active, configured=True, decay=decay)
        row = definitions.redefine(turn, row, new)
    if active_slots:
        definitions.occupy_by_hand(turn, row, active_slots)
    return _shown_again(turn, row)


def update(
    engine: Engine,
    name_or_id: str | UUID,
    *,
    name: str | None,
    limit: int | None,
    active: bool | None,
    active_slots: int | None,
    decay: float | None,
) -> Limit:
    def work(turn: Turn) -> Limit:
        row = find(turn.ledger, name_or_id)
        if name is not None and name != row.name and turn.ledger.limit_named(name) is not None:
            raise LimitExistsError(f"The limit {row.name!r} can't be renamed: {name!r} exists already.")
        new = row._replace(
            name=row.name if name is None else name,
            limit=row.limit if limit is None else limit,
            active=row.active if active is None else active,
            decay=row.decay if decay is None else decay,
            configured=True,
        )
        if active_slots is not None:
            definitions.occupy_by_hand(turn, row, active_slots)
            current = turn.ledger.limit_with_id(row.id)
            assert current is not None
            row = current
        return _shown_again(turn, definitions.redefine(turn, row, new))

    return _in_turn(engine, work)


def delete(engine: Engine, name_or_id: str | UUID) -> None:
    _in_turn(engine, lambda turn: definitions.undefine(turn, find(turn.ledger, name_or_id)))


def _in_turn(engine: Engine, work: Callable[[Turn], Result]) -> Result:
    return run(engine, lambda: engine.in_turn(work))


def _shown_again(turn: Turn, row: LimitRow) -> Limit:
    admission.settle(turn)
    current = turn.ledger.limit_with_id(row.id)
    assert current is not None
    return shown(current, turn.now)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(engine: Engine, name_or_id: str | UUID) -> Limit:
    return _looking(engine, lambda ledger: shown(find(ledger, name_or_id), engine.clock.now()))


def read_all(engine: Engine) -> list[Limit]:
    return _looking(engine, lambda ledger: [shown(row, engine.clock.now()) for row in ledger.all_limits()])


def read_shares(engine: Engine, shares: Iterable[Share]) -> tuple[Limit, ...]:
    """The limits behind shares, as they are now; deleted ones are left out."""

    def work(ledger: Ledger) -> tuple[Limit, ...]:
        rows = [ledger.limit_with_uuid(share.uuid) for share in shares]
        return tuple(shown(row, engine.clock.now()) for row in rows if row is not None)

    return _looking(engine, work)


def holders(engine: Engine, name_or_id: str | UUID | None) -> list[Holder]:
    rows = _looking(engine, lambda ledger: ledger.holding(_id_of(ledger, name_or_id)))
    return [
        Holder(name, slots, pid or 0, thread or "", command or "", moment(acquired_at))
        for name, slots, pid, thread, command, acquired_at in rows
    ]


def waiters(engine: Engine, name_or_id: str | UUID | None) -> list[Waiter]:
    rows = _looking(engine, lambda ledger: ledger.waiting(_id_of(ledger, name_or_id)))
    return [
        Waiter(Request.from_text(request).names, slots, pid or 0, thread, command or "", position, moment(since))
        for position, (request, slots, pid, thread, command, since) in enumerate(rows, 1)
    ]


def queue_lengths(engine: Engine) -> dict[UUID, int]:
    """How many wait on each limit; limits that nobody waits for are left out."""

    def work(ledger: Ledger) -> dict[UUID, int]:
        lengths = ledger.queue_lengths()
        return {UUID(bytes=row.uuid): lengths[row.id] for row in map(ledger.limit_with_id, lengths) if row}

    return _looking(engine, work)


def events(engine: Engine, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]:
    """What happened, oldest first."""

    def work(ledger: Ledger) -> tuple[bytes | None, list[Acquisition]]:
        uuid = None if name_or_id is None else find(ledger, name_or_id).uuid
        return uuid, ledger.acquisitions()

    uuid, acquisitions = _looking(engine, work)
    together: dict[tuple[int, int], list[Share]] = {}
    for taken in acquisitions:
        together.setdefault(taken.key, []).append(taken.share)
    happened = [
        (at, phase, taken)
        for taken in acquisitions
        if uuid is None or taken.uuid == uuid
        for phase, at in ((ACQUIRED, taken.acquired_at), (RELEASED, taken.released_at))
        if at is not None and (since is None or at >= since)
    ]
    happened.sort(key=lambda entry: entry[0])
    if newest is not None:
        happened = happened[max(0, len(happened) - newest) :]
    return [
        event.build(phase, at, taken.share, together[taken.key], taken.slots, *taken.key)
        for at, phase, taken in happened
    ]


def _id_of(ledger: Ledger, name_or_id: str | UUID | None) -> int | None:
    return None if name_or_id is None else find(ledger, name_or_id).id


def _looking(engine: Engine, work: Callable[[Ledger], Result]) -> Result:
    """Look at the ledger, as it is without those who have died."""

    def operation() -> Result:
        engine.notice_deaths()
        return engine.look_up(work)

    return run(engine, operation)
