"""Look at a store from outside: with a plain connection, past the engine."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from localconc._engine.homes.home import DATABASE_NAME
from localconc._engine.store.rows.schema import TOTALS_ROW, WAITING
from tests.kit.invariants import check_store, over_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

#: Longer than anything here takes; a test that waits for so long has found a hang.
PATIENCE_SECONDS = 30.0


def rows(home: Path, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What a statement reads from the store of a home."""
    with closing(sqlite3.connect(home / DATABASE_NAME, timeout=PATIENCE_SECONDS)) as connection:
        return connection.execute(statement, parameters).fetchall()


def held(home: Path, name: str | None = None) -> int:
    """Slots that processes hold by the rows of the store, of one limit or of all."""
    found = rows(
        home,
        "SELECT coalesce(sum(slots.slots), 0) FROM slots JOIN limits ON limits.id = limit_id "
        f"WHERE owner_id > {TOTALS_ROW} AND limits.name = coalesce(?, limits.name)",
        name,
    )
    return int(found[0][0])


def waiting(home: Path) -> int:
    """Requests in the queue."""
    return int(rows(home, "SELECT count(*) FROM waiters WHERE state = ?", WAITING)[0][0])


def assert_sound(home: Path) -> None:
    """The invariants that hold between any two transactions, whatever happened."""
    check_store(home)
    assert over_limit(home) == [], "more slots are held than the limit allows"


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
