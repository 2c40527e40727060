"""What must hold of a store after anything at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from localconc._engine.homes.home import DATABASE_NAME


def look_at(directory: Path) -> sqlite3.Connection:
    """Return a connection of its own that reads the store past the library."""
    return sqlite3.connect(f"file:{directory / DATABASE_NAME}?mode=ro", uri=True, timeout=5)


def check_store(directory: Path) -> None:
    """Totals equal their rows, the queue follows from the waiters, every holder has an owner, and the file is sound."""
    with closing(look_at(directory)) as connection:
        connection.execute("BEGIN")  # all of it at one moment: programs may be at work
        differing = totals_that_differ(connection)
        assert differing == [], f"totals differ from their rows: {differing}"
        check_queue(connection)
        unowned = connection.execute(
            "SELECT owner_id, serial FROM slots WHERE owner_id > 0 AND owner_id NOT IN (SELECT id FROM owners)"
        ).fetchall()
        assert unowned == [], f"owners that the store does not know hold slots: {unowned}"
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def totals_that_differ(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
    """Return limit, recorded total and real total of the limits whose total does not equal its holders' slots."""
    return connection.execute(
        """
        SELECT total.limit_id, total.slots, coalesce(sum(holder.slots), 0) AS held
        FROM slots AS total LEFT JOIN slots AS holder
            ON holder.limit_id = total.limit_id AND holder.owner_id <> 0
        WHERE total.owner_id = 0 GROUP BY total.limit_id HAVING total.slots <> held
        """
    ).fetchall()


def check_queue(connection: sqlite3.Connection) -> None:
    """Every waiting request has its place on each of its limits, and nobody else has one."""
    places = connection.execute("SELECT limit_id, ticket FROM queue").fetchall()
    expected = connection.execute(
        """
        SELECT limit_id, ticket FROM waiters WHERE state = 0 AND limit_ids IS NULL
        UNION ALL
        SELECT value, ticket FROM waiters, json_each(limit_ids) WHERE state = 0 AND limit_ids IS NOT NULL
        """
    ).fetchall()
    assert sorted(places) == sorted(expected), "the queue and the waiters differ"


def over_limit(directory: Path) -> list[tuple[str, int, int]]:
    """Return the limits without decay of which more is held than they allow."""
    with closing(look_at(directory)) as connection:
        return connection.execute(
            """
            SELECT name, slots, limits."limit" FROM limits JOIN slots ON limit_id = limits.id AND owner_id = 0
            WHERE slot_decay_per_second = 0 AND slots > limits."limit"
            """
        ).fetchall()
