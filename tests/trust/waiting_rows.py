"""The rows that tell who waits for what."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from localconc._engine.core.records import limits_in
from localconc._engine.store.rows.schema import WAITING


class Queued(NamedTuple):
    """A place in the queues."""

    ticket: int
    slots: int
    limit_ids: frozenset[int]


def places(connection: sqlite3.Connection) -> dict[tuple[int, int], Queued]:
    """Return the requests that wait, by owner and serial."""
    rows = connection.execute(
        f"SELECT owner_id, serial, ticket, slots, limit_id, limit_ids FROM waiters WHERE state = {WAITING}"
    )
    return {
        (owner_id, serial): Queued(ticket, slots, frozenset(limits_in(limit_id, limit_ids)))
        for owner_id, serial, ticket, slots, limit_id, limit_ids in rows
    }


def sizes_that_count(connection: sqlite3.Connection) -> dict[int, int]:
    """Return the slots of the limits that neither drain nor have none."""
    return dict(
        connection.execute(
            'SELECT id, "limit" FROM limits WHERE active AND slot_decay_per_second = 0 AND "limit" > 0'
        ).fetchall()
    )


def ids_of(connection: sqlite3.Connection, names: tuple[str, ...]) -> frozenset[int]:
    """Return the limits with these names that are enforced."""
    found = {name: limit_id for limit_id, name in connection.execute("SELECT id, name FROM limits WHERE active")}
    return frozenset(found[name] for name in names if name in found)


def slots_held(connection: sqlite3.Connection) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return limit and slots of what is held, by owner and serial."""
    held: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for owner_id, serial, limit_id, slots in connection.execute(
        "SELECT owner_id, serial, limit_id, slots FROM slots WHERE owner_id > 0"
    ):
        held.setdefault((owner_id, serial), []).append((limit_id, slots))
    return held
