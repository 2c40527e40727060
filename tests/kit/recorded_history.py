"""Made-up acquisitions, written into a real store as if they had happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from localconc._engine.core.history import Acquisition
from localconc._engine.store.rows.schema import INSTANT, KILLED, UNSEEN

#: Far above the numbers that processes of a test get.
_FIRST_OWNER = 1_000_000

_ENDINGS = {"released": None, "killed": KILLED, "unseen": UNSEEN, "instant": INSTANT}


def record(home: Path, acquisitions: Iterable[Acquisition]) -> None:
    """Write acquisitions of limits that exist into the history of a home."""
    store = sqlite3.connect(home / "localconc.db")
    limits = dict(store.execute("SELECT name, id FROM limits").fetchall())
    owners: dict[tuple[int, str], int] = {}
    with store:
        for serial, each in enumerate(acquisitions):
            owner = owners.setdefault((each.pid, each.command), _FIRST_OWNER + len(owners))
            released = None if each.released_at is None else each.released_at.timestamp()
            store.execute(
                'INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_wall, released_wall, '
                "waited_seconds, thread, label, numbers, ending) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (limits[each.name], owner, serial, each.slots, each.acquired_at.timestamp(), released,
                 each.waited_seconds, each.thread, each.label, ",".join(map(str, each.numbers)) or None,
                 _ENDINGS[each.ending]),
            )  # fmt: skip
        for (pid, command), owner in owners.items():
            store.execute("INSERT INTO past_owners (id, pid, command) VALUES (?, ?, ?)", (owner, pid, command))
    store.close()
