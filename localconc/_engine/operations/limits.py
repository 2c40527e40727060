"""Declaring limits: create, ensure, update, delete, pause, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from localconc._engine.core import display, views
from localconc._engine.queue import admission, definitions
from localconc._engine.store.rows import listings
from localconc._engine.waiting.threads import run
from localconc.errors import LimitExistsError, LimitNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from localconc._engine.core.records import LimitRow
    from localconc._engine.core.views import Holder, Limit
    from localconc._engine.engine import Engine
    from localconc._engine.store.rows.ledger import Ledger
    from localconc._engine.store.store import Transaction


Result = TypeVar("Result")


def find(ledger: Ledger, name_or_id: str | UUID) -> LimitRow:
    """Return the row of a limit by name or id; a text that is the id of one and the name of none counts as the id.

    Raises:
        LimitNotFoundError: there is no such limit.
    """
    row = None
    if isinstance(name_or_id, UUID):
        row = ledger.limit_with_uuid(name_or_id.bytes)
    elif isinstance(name_or_id, str):
        row = ledger.limit_named(name_or_id) or _with_id_text(ledger, name_or_id)
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


def create(engine: Engine, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit:
    """Create a limit; over a placeholder it becomes what is asked for."""

    def work(txn: Transaction) -> Limit:
        row = txn.ledger.limit_named(name)
        if row is not None and row.configured:
            raise LimitExistsError(
                f"The limit {name!r} exists already, with limit={row.limit}: change it with update_limit, or use "
                "ensure_limit."
            )
        return _shown(txn, _put(txn, row, name, limit, active=active, decay=decay, active_slots=active_slots))

    return _transact(engine, work)


def ensure(engine: Engine, name: str, limit: int, *, active: bool, decay: float) -> Limit:
    """Create a limit, or update it to this; write nothing if it is the same already."""

    def work(txn: Transaction) -> Limit:
        row = txn.ledger.limit_named(name)
        if row is None or not _is_declared_as(row, limit, active, decay):
            row = _put(txn, row, name, limit, active=active, decay=decay, active_slots=0)
        return _shown(txn, row)

    return _transact(engine, work)


def ensure_all(engine: Engine, wanted: Iterable[tuple[str, int, bool, float]]) -> list[Limit]:
    """Create or update many limits (name, limit, active, decay) in one transaction: all, or none."""

    def work(txn: Transaction) -> list[Limit]:
        rows = [
            _put(txn, txn.ledger.limit_named(name), name, limit, active=active, decay=decay, active_slots=0)
            for name, limit, active, decay in wanted
        ]
        return [_shown(txn, row) for row in rows]

    return _transact(engine, work)


def _is_declared_as(row: LimitRow, limit: int, active: bool, decay: float) -> bool:
    stored = (bool(row.configured), bool(row.declared), row.limit, bool(row.active), row.decay)
    return stored == (True, True, limit, active, decay)


def _put(
    txn: Transaction, row: LimitRow | None, name: str, limit: int, *, active: bool, decay: float, active_slots: int
) -> LimitRow:
    if row is None:
        row = definitions.define(txn, name, limit=limit, active=active, configured=True, declared=True, decay=decay)
    else:
        new = row._replace(limit=limit, active=active, configured=True, declared=True, decay=decay)
        row = definitions.redefine(txn, row, new)
    if active_slots:
        definitions.occupy_by_operator(txn, row, active_slots)
    return row


def update(
    engine: Engine,
    name_or_id: str | UUID,
    *,
    name: str | None = None,
    limit: int | None = None,
    active: bool | None = None,
    active_slots: int | None = None,
    decay: float | None = None,
) -> Limit:
    """Change a limit; waiting calls are reevaluated against the new definition."""

    def work(txn: Transaction) -> Limit:
        row = find(txn.ledger, name_or_id)
        if name is not None and name != row.name:
            _make_room(txn, row, name)
        new = row._replace(
            name=row.name if name is None else name,
            limit=row.limit if limit is None else limit,
            active=row.active if active is None else active,
            decay=row.decay if decay is None else decay,
            configured=True,
            declared=True,
        )
        if active_slots is not None:
            definitions.occupy_by_operator(txn, row, active_slots)
            current = txn.ledger.limit_with_id(row.id)
            assert current is not None
            row = current
        return _shown(txn, definitions.redefine(txn, row, new))

    return _transact(engine, work)


def _make_room(txn: Transaction, row: LimitRow, name: str) -> None:
    """Make a name free for a limit: a placeholder gives way."""
    taken = txn.ledger.limit_named(name)
    if taken is not None and taken.configured:
        raise LimitExistsError(f"The limit {row.name!r} can't be renamed: {name!r} exists already.")
    if taken is not None:
        definitions.undefine(txn, taken)


def reset(engine: Engine, name_or_id: str | UUID) -> list[Holder]:
    """Discard every holder of a limit, which admits waiters; return the discarded holders."""

    def work(txn: Transaction) -> list[Holder]:
        row = find(txn.ledger, name_or_id)
        holders = [entry.shown() for entry in listings.holders(txn.ledger.connection, row.id)]
        definitions.occupy_by_operator(txn, row, 0)
        return holders

    return _transact(engine, work)


def delete(engine: Engine, name_or_id: str | UUID) -> None:
    """Delete a limit; waiting calls go on without it."""
    _transact(engine, lambda txn: definitions.undefine(txn, find(txn.ledger, name_or_id)))


def pause(engine: Engine, name_or_id: str | UUID, seconds: float) -> Limit:
    """Pause a limit for some seconds; the later end of two pauses counts."""
    return _change(engine, name_or_id, lambda txn, row: definitions.pause(txn, row, seconds))


def resume(engine: Engine, name_or_id: str | UUID) -> Limit:
    """End a pause at once, and admit the next waiters."""
    return _change(engine, name_or_id, definitions.resume)


def _change(engine: Engine, name_or_id: str | UUID, change: Callable[[Transaction, LimitRow], None]) -> Limit:
    def work(txn: Transaction) -> Limit:
        row = find(txn.ledger, name_or_id)
        change(txn, row)
        return _shown(txn, row)

    return _transact(engine, work)


def _transact(engine: Engine, work: Callable[[Transaction], Result]) -> Result:
    display.load()
    return run(engine, lambda: engine.store.transact(work))


def _shown(txn: Transaction, row: LimitRow) -> Limit:
    """Reevaluate the waiters, and return a limit as it is afterwards."""
    admission.reevaluate(txn)
    current = txn.ledger.limit_with_id(row.id)
    assert current is not None
    return views.limit(current, txn.now, txn.wall)
