"""Look at a store from outside: with a plain connection, past the engine."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from localconc._engine.homes.home import DATABASE_NAME
from localconc._engine.store.ledger import Ledger
from localconc._engine.store.schema import TOTAL, WAITING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

#: Longer than anything here takes; a test that waits for so long has found a hang.
PATIENCE_SECONDS = 10.0


def rows(home: Path, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What a statement reads from the store of a home."""
    with closing(sqlite3.connect(home / DATABASE_NAME, timeout=PATIENCE_SECONDS)) as connection:
        return connection.execute(statement, parameters).fetchall()


def held(home: Path, name: str | None = None) -> int:
    """Slots that processes hold by the rows of the store, of one limit or of all."""
    found = rows(
        home,
        "SELECT coalesce(sum(slots.slots), 0) FROM slots JOIN limits ON limits.id = limit_id "
        f"WHERE owner_id > {TOTAL} AND released IS NULL AND limits.name = coalesce(?, limits.name)",
        name,
    )
    return int(found[0][0])


def waiting(home: Path) -> int:
    """Requests in line."""
    return int(rows(home, "SELECT count(*) FROM waiters WHERE state = ?", WAITING)[0][0])


def assert_sound(home: Path) -> None:
    """The invariants that hold between any two transactions, whatever happened."""
    with closing(sqlite3.connect(home / DATABASE_NAME, timeout=PATIENCE_SECONDS)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert Ledger(connection).sums_that_differ() == []
        over = connection.execute(
            'SELECT limits.name, limits."limit", sum(slots.slots) FROM slots JOIN limits ON limits.id = limit_id '
            f"WHERE owner_id > {TOTAL} AND released IS NULL AND limits.slot_decay_per_second = 0 "
            'GROUP BY slots.limit_id HAVING sum(slots.slots) > limits."limit"'
        ).fetchall()
        assert over == [], "more slots are held than the limit allows"
        queued = set(connection.execute("SELECT limit_id, ticket FROM queue"))
        expected = {
            (limit_id, ticket)
            for ticket, limit_ids in connection.execute(
                "SELECT ticket, limit_ids FROM waiters WHERE state = ?", (WAITING,)
            )
            for limit_id in map(int, re.findall(r"\d+", limit_ids))
        }
        assert queued == expected, "the queue and the waiters differ"
        unowned = connection.execute(
            f"SELECT owner_id FROM slots WHERE owner_id > {TOTAL} AND released IS NULL "
            "AND owner_id NOT IN (SELECT id FROM owners)"
        ).fetchall()
        assert unowned == [], "slots are held by an owner that the store does not know"


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Look again and again until a condition holds; returns after how many seconds it did."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.0005)
    return time.monotonic() - begun


def in_thread(function: Callable[[], object]) -> None:
    """Run something in another thread, and fail if it does not end: who leaves a lock behind is found out here."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "another thread can't go on: a lock was left behind"
    if failures:
        raise failures[0]
