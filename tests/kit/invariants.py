"""What must hold of a store after anything at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from localconc._engine.homes.home import DATABASE_NAME


def check_store(directory: Path) -> None:
    """Sums equal their rows, queues and waiters belong together, and the file is sound. Looks past the library."""
    connection = sqlite3.connect(f"file:{directory / DATABASE_NAME}?mode=ro", uri=True, timeout=5)
    try:
        differing = connection.execute(
            """
            SELECT total.limit_id, total.slots, coalesce(sum(holder.slots), 0) AS held
            FROM slots AS total LEFT JOIN slots AS holder
                ON holder.limit_id = total.limit_id AND holder.owner_id <> 0
            WHERE total.owner_id = 0 GROUP BY total.limit_id HAVING total.slots <> held
            """
        ).fetchall()
        assert differing == [], f"sums differ from their rows: {differing}"
        lost = connection.execute(
            "SELECT * FROM queue WHERE ticket NOT IN (SELECT ticket FROM waiters WHERE state = 0)"
        ).fetchall()
        assert lost == [], f"places in a queue without somebody who waits: {lost}"
        for row in connection.execute("SELECT ticket, coalesce(json_array_length(limit_ids), 1) FROM waiters WHERE state = 0"):
            places = connection.execute("SELECT count(*) FROM queue WHERE ticket = ?", row[:1]).fetchone()[0]
            assert places == row[1], f"waiter {row} has {places} places"
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    finally:
        connection.close()


def over_limit(directory: Path) -> list[tuple[str, int, int]]:
    """Limits without decay of which more is held than they allow."""
    connection = sqlite3.connect(f"file:{directory / DATABASE_NAME}?mode=ro", uri=True, timeout=5)
    try:
        return connection.execute(
            """
            SELECT name, slots, limits."limit" FROM limits JOIN slots ON limit_id = limits.id AND owner_id = 0
            WHERE slot_decay_per_second = 0 AND slots > limits."limit"
            """
        ).fetchall()
    finally:
        connection.close()
