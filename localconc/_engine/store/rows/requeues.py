"""Rows of waiters that leave their queues: because they are stopped, or to stand in others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine.core.records import WaiterRow
from localconc._engine.store.rows.schema import PASSED_OVER, WAITING

if TYPE_CHECKING:
    import sqlite3


def insert_passed_over(connection: sqlite3.Connection, waiter: WaiterRow) -> None:
    """Note a waiter that was stopped when it was granted slots; it has no place in the queue."""
    columns = ", ".join(WaiterRow._fields)
    marks = ", ".join("?" for _ in WaiterRow._fields)
    connection.execute(f"INSERT INTO waiters ({columns}) VALUES ({marks})", waiter._replace(state=PASSED_OVER))


def pass_over(connection: sqlite3.Connection, waiter: WaiterRow) -> None:
    """Take a waiter that is stopped out of its queues before it is granted anything; it keeps its ticket."""
    connection.execute(
        "UPDATE waiters SET state = ?, limit_ids = ?, secret = 0 WHERE ticket = ?",
        (PASSED_OVER, json_list(waiter.queued_on), waiter.ticket),
    )


def requeue_elsewhere(connection: sqlite3.Connection, ticket: int, limit_ids: list[int]) -> None:
    """Queue a waiter on other limits, by its place in the order of arrival.

    Without the secret, no wakeup can tell its process what it was granted: it has to look which limits they are.
    """
    connection.execute("UPDATE waiters SET limit_ids = ?, secret = 0 WHERE ticket = ?", (json_list(limit_ids), ticket))


def rejoin(connection: sqlite3.Connection, waiter: WaiterRow) -> None:
    """Queue a waiter that was passed over, at its old place in the order of arrival."""
    connection.execute(
        "UPDATE waiters SET state = ?, slots = ?, limit_ids = ?, request = ?, address = ?, has_end = ?, stops = ? "
        "WHERE ticket = ?",
        (
            WAITING,
            waiter.slots,
            waiter.limit_ids,
            waiter.request,
            waiter.address,
            waiter.has_end,
            waiter.stops,
            waiter.ticket,
        ),
    )


def json_list(limit_ids: list[int]) -> str:
    """Return the limits of a queue as the column has them."""
    return f"[{','.join(map(str, limit_ids))}]"
