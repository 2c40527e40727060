"""Who waits forever, worked out from what simulated threads know of themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from localconc._engine.core.records import limits_in
from localconc._engine.store.rows.schema import WAITING

#: The ticket of a request that is not queued yet.
LAST = 2**62


class Wish(NamedTuple):
    """A thread that waits for as long as it takes."""

    ticket: int
    thread: Hashable
    slots: int
    limit_ids: frozenset[int]


class Hold(NamedTuple):
    """Slots of one limit that a thread holds."""

    thread: Hashable
    limit_id: int
    slots: int


def wait_forever(wishes: Iterable[Wish], holds: Iterable[Hold], sizes: dict[int, int]) -> set[int]:
    """Return the tickets that no release admits: word for word what the contract says, however long it takes."""
    left = set(wishes)
    before = None
    while before != len(left):
        before = len(left)
        for wish in list(left):
            waiting = {each.thread for each in left}
            kept = dict.fromkeys(sizes, 0)
            for hold in holds:
                if hold.thread in waiting and hold.limit_id in kept:
                    kept[hold.limit_id] += hold.slots
            ahead = {limit_id for each in left if each.ticket < wish.ticket for limit_id in each.limit_ids}
            counting = wish.limit_ids & sizes.keys()
            if not ahead & counting and all(kept[each] + wish.slots <= sizes[each] for each in counting):
                left.discard(wish)
    return {wish.ticket for wish in left}


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
