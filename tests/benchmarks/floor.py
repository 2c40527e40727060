"""The floor: what two bare SQLite write transactions cost through Python's sqlite3."""

import sqlite3
from pathlib import Path

SCHEMA = """
PRAGMA page_size = 1024;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE holder (id INTEGER PRIMARY KEY, name TEXT, slots INTEGER, owner TEXT, acquired_at REAL);
"""
INSERT = "INSERT INTO holder (id, name, slots, owner, acquired_at) VALUES (?, ?, ?, ?, ?)"
DELETE = "DELETE FROM holder WHERE id = ?"


class Floor:
    """Write a holder row, then delete it: the least that any store of this kind does."""

    def __init__(self, directory: Path) -> None:
        self._connection = sqlite3.connect(directory / "floor.sqlite", isolation_level=None)
        self._connection.executescript(SCHEMA)
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def pair(self) -> None:
        """One transaction that acquires and one that releases."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        execute(INSERT, (1, "database", 1, "4711", 1234567.891))
        execute("COMMIT")
        execute("BEGIN IMMEDIATE")
        execute(DELETE, (1,))
        execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
