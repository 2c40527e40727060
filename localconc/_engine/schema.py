"""The tables, and how a store comes into being.

`limits` holds definitions. `slots` holds who occupies what: one row a holder and, under the owner `TOTAL`, the sum
of the limit's rows. Both lie in one tree, ordered by limit, so that taking a slot changes one page of the file; the
sum is kept by triggers, so that no statement can change a holder and forget it. Setting `released` gives a holder's
slots back: a trigger moves the row to `history`, which is bounded.
`waiters` holds the requests in order of arrival, `queue` their place in each limit, `owners` the processes.
"""

from __future__ import annotations

from localconc._engine.rules import (
    INITIAL_AVERAGE_OCCUPANCY_SECONDS,
    MINIMUM_OCCUPANCY_SECONDS_PER_SLOT,
    OCCUPANCY_SAMPLES_MULTIPLIER,
)

APPLICATION_ID = 0x6C636F6E  # "lcon": what `file` and the doctor see
SCHEMA_VERSION = 1

PAGE_BYTES = 512

#: How long the log grows before it is brought into the file: 4 MiB. A quarter of that costs 3 % of an acquisition.
CHECKPOINT_PAGES = 8_000

#: How many acquisitions the history keeps, and how many more it may have before the oldest are dropped.
HISTORY_ROWS = 10_000
HISTORY_SLACK_ROWS = 64

#: Owner of the row that sums a limit's slots, and of slots that an operator set and no process owns.
TOTAL = 0
NOBODY = -1

#: The boot identity of a store that no process has used yet.
NEVER_BOOTED = "never"

#: States of a waiter.
WAITING, GRANTED, REFUSED = 0, 1, 2

TABLES = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
    """,
    """
    CREATE TABLE limits (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        uuid BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE,
        "limit" INTEGER NOT NULL,
        active INTEGER NOT NULL,
        configured INTEGER NOT NULL,           -- 0: a placeholder, made because a call named it
        slot_decay_per_second REAL NOT NULL,
        revision INTEGER NOT NULL DEFAULT 1,   -- grows with every change
        created REAL NOT NULL,
        updated REAL NOT NULL
    )
    """,
    """
    CREATE TABLE slots (
        limit_id INTEGER NOT NULL,
        owner_id INTEGER NOT NULL,
        serial INTEGER NOT NULL,               -- the owner's number of this acquisition
        slots INTEGER NOT NULL,
        acquired_at REAL,                      -- wall clock, for people
        since REAL,                            -- clock since boot, for arithmetic
        released REAL,                         -- clock since boot: set to give back, and gone with the row
        thread TEXT,
        "limit" INTEGER,                       -- the definition's: of the sum, as it is; of a holder, as it was
        revision INTEGER,                      -- of the sum: the definition's, if slots may be taken at once
        drained_at REAL,                       -- with decay: when the last of these slots drains; of the sum: empty_at
        drained_at_wall REAL,                  -- of the sum: the same on the wall clock, for the next boot
        average REAL,                          -- of the sum: avg_slot_occupancy_seconds
        denied REAL,                           -- of the sum: refused slots at the moment denied_at
        denied_at REAL,
        PRIMARY KEY (limit_id, owner_id, serial)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE waiters (
        ticket INTEGER PRIMARY KEY,            -- the order of arrival
        owner_id INTEGER NOT NULL,
        serial INTEGER NOT NULL,
        state INTEGER NOT NULL,
        slots INTEGER NOT NULL,
        request TEXT NOT NULL,
        limit_ids TEXT NOT NULL,
        thread TEXT NOT NULL,
        address TEXT NOT NULL,
        secret INTEGER NOT NULL,               -- a signal that names it comes from somebody who can read this
        waiting_since REAL NOT NULL,
        is_plain INTEGER NOT NULL,             -- 1: for slots of one limit, to be held until they are given back
        admitted_at REAL,                      -- wall clock
        admitted_since REAL,                   -- clock since boot
        answer TEXT                            -- of a refusal: the reason; of a grant: its shares, if not as queued
    )
    """,
    """
    CREATE TABLE queue (
        limit_id INTEGER NOT NULL,
        ticket INTEGER NOT NULL,
        PRIMARY KEY (limit_id, ticket)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE owners (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL,
        pid INTEGER NOT NULL,
        pid_namespace TEXT NOT NULL,
        started TEXT NOT NULL,
        command TEXT NOT NULL,
        is_command INTEGER NOT NULL DEFAULT 0  -- 1: a command that `localconc run` started, which may outlive it
    )
    """,
    """
    CREATE TABLE history (
        seq INTEGER PRIMARY KEY,
        limit_id INTEGER NOT NULL,
        "limit" INTEGER NOT NULL,
        owner_id INTEGER NOT NULL,
        serial INTEGER NOT NULL,
        slots INTEGER NOT NULL,
        acquired_at REAL NOT NULL,
        released_at REAL                       -- null: taken by rate_limit, or ended by a reboot
    )
    """,
    """
    CREATE TABLE past_limits (id INTEGER PRIMARY KEY, uuid BLOB NOT NULL, name TEXT NOT NULL)
    """,
)

_SUM = f"WHERE limit_id = old.limit_id AND owner_id = {TOTAL} AND serial = 0"

_REVISION = "CASE WHEN new.active AND new.slot_decay_per_second = 0 THEN new.revision END"

TRIGGERS = (
    # A slot taken at once, in one statement, names the revision of the definition it counts on. It is taken only if
    # the sum's row shows that revision still (which it does while the limit is enforced and does not decay), has
    # room, and nobody waits: the conditions that `admission` spells out for every other case.
    f"""
    CREATE TRIGGER guarded BEFORE INSERT ON slots WHEN new.revision IS NOT NULL AND new.owner_id <> {TOTAL} BEGIN
        UPDATE slots SET slots = slots + new.slots {_SUM.replace("old.", "new.")}
            AND revision = new.revision AND slots + new.slots <= "limit"
            AND NOT EXISTS (SELECT 1 FROM queue WHERE limit_id = new.limit_id);
        SELECT RAISE(IGNORE) WHERE changes() = 0;
    END
    """,
    f"""
    CREATE TRIGGER occupied AFTER INSERT ON slots WHEN new.revision IS NULL AND new.owner_id <> {TOTAL} BEGIN
        UPDATE slots SET slots = slots + new.slots {_SUM.replace("old.", "new.")};
    END
    """,
    # The average moves as Prefect's: by (held per slot - average) / (2 * limit).
    f"""
    CREATE TRIGGER released AFTER UPDATE OF released ON slots BEGIN
        UPDATE slots SET
            slots = slots - old.slots,
            average = average
                + (max((new.released - old.since) / max(old.slots, 1), {MINIMUM_OCCUPANCY_SECONDS_PER_SLOT}) - average)
                / ({OCCUPANCY_SAMPLES_MULTIPLIER} * max("limit", 1))
        {_SUM};
        INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_at, released_at) VALUES (
            old.limit_id, coalesce(old."limit", (SELECT "limit" FROM slots {_SUM})), old.owner_id, old.serial,
            old.slots, old.acquired_at, old.acquired_at + (new.released - old.since)
        );
        DELETE FROM slots WHERE limit_id = old.limit_id AND owner_id = old.owner_id AND serial = old.serial;
    END
    """,
    f"""
    CREATE TRIGGER trimmed AFTER INSERT ON history WHEN new.seq % {HISTORY_SLACK_ROWS} = 0 BEGIN
        DELETE FROM history WHERE seq <= new.seq - {HISTORY_ROWS};
    END
    """,
    f"""
    CREATE TRIGGER forgotten AFTER DELETE ON slots WHEN old.owner_id <> {TOTAL} AND old.released IS NULL BEGIN
        UPDATE slots SET slots = slots - old.slots {_SUM};
    END
    """,
    """
    CREATE TRIGGER queued AFTER INSERT ON waiters BEGIN
        INSERT INTO queue VALUES (CAST(new.limit_ids AS INTEGER), new.ticket);
    END
    """,
    # Whoever is answered leaves the queue; of more than one limit, `limit_ids` begins with the first.
    """
    CREATE TRIGGER answered AFTER UPDATE OF state ON waiters BEGIN
        DELETE FROM queue WHERE limit_id = CAST(new.limit_ids AS INTEGER) AND ticket = new.ticket;
    END
    """,
    # What a plain waiter was granted; in every other case `admission` says what that is.
    f"""
    CREATE TRIGGER granted AFTER UPDATE OF state ON waiters WHEN new.is_plain AND new.state = {GRANTED} BEGIN
        INSERT INTO slots (limit_id, "limit", owner_id, serial, slots, acquired_at, since, thread) VALUES (
            CAST(new.limit_ids AS INTEGER),
            (SELECT "limit" FROM slots {_SUM.replace("old.limit_id", "CAST(new.limit_ids AS INTEGER)")}),
            new.owner_id, new.serial, new.slots, new.admitted_at, new.admitted_since, new.thread
        );
    END
    """,
    f"""
    CREATE TRIGGER defined AFTER INSERT ON limits BEGIN
        INSERT INTO slots (limit_id, owner_id, serial, slots, "limit", revision, average, denied, denied_at)
        VALUES (new.id, {TOTAL}, 0, 0, new."limit", {_REVISION}, {INITIAL_AVERAGE_OCCUPANCY_SECONDS}, 0, 0);
    END
    """,
    f"""
    CREATE TRIGGER redefined AFTER UPDATE ON limits BEGIN
        UPDATE slots SET "limit" = new."limit", revision = {_REVISION} {_SUM.replace("old.limit_id", "new.id")};
    END
    """,
    """
    CREATE TRIGGER deleted AFTER DELETE ON limits BEGIN
        INSERT INTO past_limits VALUES (old.id, old.uuid, old.name);
        DELETE FROM slots WHERE limit_id = old.id;
        DELETE FROM queue WHERE limit_id = old.id;
    END
    """,
)

#: From an older version to the next: statements by the version they start from.
MIGRATIONS: dict[int, tuple[str, ...]] = {}

CREATE_ALL = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    *TABLES,
    *TRIGGERS,
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
