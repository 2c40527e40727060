"""The tables with the triggers that keep their invariants.

`limits` has the definitions. `slots` has a row for each holder and, under the owner `TOTALS_ROW`, one for the total of
each limit. Both kinds are in one table, ordered by limit, so that to acquire a slot changes one page of the file.
Triggers count a new holder into the total, and a released one out of it. A statement that sets `released_boot` releases
a holder's slots: a trigger moves the row to `history`, which is bounded. A statement that inserts into `rate_calls`,
which is no table, is a call of `rate_limit`: a trigger does what there is to do, or fails.

`waiters` has the queued requests in the order of arrival. A ticket is never given twice (AUTOINCREMENT), so one that a
process has remembered for too long names no other waiter. `queue` has the places of the waiters, limit by limit. Only
triggers on `waiters` write it, so no place outlives its waiter.

The statement that admits a simple waiter (one limit, no decay: `limit_ids` is null) deletes its row, and may release a
holder's slots before. Every other waiter only leaves the queue: its row stays, with the outcome, until it is accepted.
"""

from __future__ import annotations

from typing import Final

from localconc._engine.core.rules import (
    INITIAL_AVERAGE_OCCUPANCY_SECONDS,
    MINIMUM_OCCUPANCY_SECONDS_PER_SLOT,
    OCCUPANCY_SAMPLES_MULTIPLIER,
    TOLERANCE_SLOTS,
)

APPLICATION_ID: Final = 0x6C636F6E  # "lcon": what `file` and the doctor see
SCHEMA_VERSION: Final = 2

PAGE_BYTES: Final = 512

#: How long the log grows before it is brought into the file: as much less than `LOG_BYTES` as is written between two
#: looks at its length. Twice as much would save 1 % of an acquisition.
CHECKPOINT_PAGES: Final = 2_500

#: SQLite cuts a longer log to this size. A reader that does not end lets it grow.
LOG_BYTES: Final = 2_000_000

#: How many acquisitions the history keeps, and how many more it may have before a trigger deletes the oldest.
HISTORY_ROWS: Final = 10_000
HISTORY_SLACK_ROWS: Final = 64

#: The owner of the row with the total of a limit, and the owner of slots that an operator occupied.
TOTALS_ROW: Final = 0
OPERATOR: Final = -1

#: A ticket after every other one.
MAX_TICKET: Final = 2**63 - 1

#: The boot identity of a store that no process has joined yet.
NEVER_BOOTED: Final = "never"

#: The states of a waiter. A process that is stopped when it is granted slots is passed over: its request leaves the
#: queue, and returns to its old place, by its ticket, when the process runs again.
WAITING, GRANTED, REFUSED, PASSED_OVER = 0, 1, 2, 3

#: How an acquisition ended without a release: another process saw its process die, no process saw that, or it took its
#: slots at an instant (rate_limit).
KILLED, UNSEEN, INSTANT = 1, 2, 3

TABLES: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE limits (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        uuid BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE,
        "limit" INTEGER NOT NULL,
        active INTEGER NOT NULL,
        configured INTEGER NOT NULL,           -- 0: a placeholder, made because a call named it
        declared INTEGER NOT NULL,             -- 1: by an operator; 0: by the `limit=` of a call
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
        acquired_wall REAL,                    -- for people
        acquired_boot REAL,                    -- for arithmetic
        released_boot REAL,                    -- set to release: the row moves to the history
        ending INTEGER,                        -- set before it for a process that died: KILLED, or UNSEEN
        thread TEXT,
        label TEXT,
        context INTEGER,                       -- the thread or task, if only it releases the slots
        "limit" INTEGER,                       -- of the total: the definition's; of a holder: as it was at the grant
        revision INTEGER,                      -- of the total: the definition's, if it is enforced
        decay REAL,                            -- of the total: the definition's, if it has one
        drained_at REAL,                       -- with decay: when the last of these slots drains (empty_at)
        drained_at_wall REAL,                  -- of the total: the same by the wall clock, for the next boot
        waited_seconds REAL,
        ticket INTEGER,                        -- of a holder that was queued
        numbers TEXT,                          -- the slot numbers, once the holder asked for them: '0,1'
        average REAL,                          -- of the total: avg_slot_occupancy_seconds
        denied REAL,                           -- of the total: refused slots at the moment denied_at
        denied_at REAL,
        paused_until REAL,                     -- of the total: the limit admits no request before then
        paused_until_wall REAL,
        PRIMARY KEY (limit_id, owner_id, serial)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE waiters (
        ticket INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of arrival
        owner_id INTEGER NOT NULL,
        serial INTEGER NOT NULL,
        state INTEGER NOT NULL,
        slots INTEGER NOT NULL,
        limit_id INTEGER NOT NULL,             -- the only limit of a simple request
        limit_ids TEXT,                        -- of every other one: all of its limits, as a JSON list
        request TEXT NOT NULL,                 -- the label of the call follows its first '>'
        thread TEXT NOT NULL,
        context INTEGER NOT NULL,              -- the thread or task, if only it releases the slots; else 0
        has_end INTEGER NOT NULL DEFAULT 0,    -- 1: it waits with a time-out, or with retries
        stops TEXT NOT NULL DEFAULT '',        -- contexts of its process that hold something and stop while it waits
        address TEXT NOT NULL,
        secret INTEGER NOT NULL,               -- a wakeup that names it comes from a process that can read this row
        waiting_since REAL NOT NULL,           -- wall clock
        enqueued_boot REAL NOT NULL,
        granted_wall REAL,
        granted_boot REAL,
        giver_id INTEGER, given_serial INTEGER,  -- the holder whose slots the same UPDATE releases
        answer TEXT                            -- why the request was refused
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
        acquired_wall REAL NOT NULL,
        released_wall REAL,                    -- null: rate_limit took the slots, or no process saw the end
        waited_seconds REAL NOT NULL,
        thread TEXT,
        label TEXT,
        numbers TEXT,
        ending INTEGER                         -- null: released; else KILLED, UNSEEN, or INSTANT
    )
    """,
    """
    CREATE TABLE refusals (seq INTEGER PRIMARY KEY, limit_id INTEGER NOT NULL, refused_wall REAL NOT NULL)
    """,
    """
    CREATE TABLE past_limits (
        seq INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, uuid BLOB NOT NULL, name TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE past_owners (
        seq INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, pid INTEGER NOT NULL, command TEXT NOT NULL
    )
    """,
    'CREATE VIEW rate_calls (limit_id, revision, "limit", owner_id, serial, slots, acquired_wall, acquired_boot, '
    "thread, label, context) AS VALUES (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
)


def total_of(limit_id: str = "?", of: str = "") -> str:
    """Return the condition that selects the row of a limit's total; `of` is the name of the table with a dot."""
    return f"{of}limit_id = {limit_id} AND {of}owner_id = {TOTALS_ROW} AND {of}serial = 0"


#: What the row of a total says of its definition; the revision is null while it is not enforced.
_REVISION, _DECAY = "CASE WHEN new.active THEN new.revision END", "nullif(new.slot_decay_per_second, 0)"


TRIGGERS: Final = (
    # The fast statements name the revision of the definition that their process knows. The triggers let them pass if
    # the total still shows that revision (so the limit is enforced, and its decay is the known one), there is room, and
    # the limit has no pause and no queue. `queue.turns` has the same conditions for every other case.
    f"""
    CREATE TRIGGER counted BEFORE INSERT ON slots WHEN new.owner_id <> {TOTALS_ROW} BEGIN
        UPDATE slots SET slots = slots + new.slots WHERE {total_of("new.limit_id")} AND (
            new.revision IS NULL OR (
                revision = new.revision AND slots + new.slots <= "limit"
                AND (paused_until IS NULL OR paused_until <= new.acquired_boot)
                AND NOT EXISTS (SELECT 1 FROM queue WHERE limit_id = new.limit_id)
            )
        );
        SELECT RAISE(IGNORE) WHERE changes() = 0;
    END
    """,
    # The arithmetic of `core.rules`: `occupied_slots`, `fits`, `empty_at_after`.
    f"""
    CREATE TRIGGER metered INSTEAD OF INSERT ON rate_calls BEGIN
        UPDATE slots SET
            drained_at = max(coalesce(drained_at, 0), new.acquired_boot) + new.slots / decay,
            drained_at_wall = new.acquired_wall
                + (max(coalesce(drained_at, 0), new.acquired_boot) + new.slots / decay - new.acquired_boot)
        WHERE {total_of("new.limit_id")}
            AND revision = new.revision
            AND max(coalesce(drained_at, 0) - new.acquired_boot, 0) * decay + new.slots <= "limit" + {TOLERANCE_SLOTS}
            AND (paused_until IS NULL OR paused_until <= new.acquired_boot)
            AND NOT EXISTS (SELECT 1 FROM queue WHERE limit_id = new.limit_id);
        SELECT RAISE(FAIL, 'the rules are needed') WHERE changes() = 0;
        INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_wall, waited_seconds, thread, label,
            ending)
        VALUES (new.limit_id, new."limit", new.owner_id, new.serial, new.slots, new.acquired_wall, 0, new.thread,
            new.label, {INSTANT});
    END
    """,
    # The average moves as Prefect's: by (held per slot - average) / (2 * limit).
    f"""
    CREATE TRIGGER released AFTER UPDATE OF released_boot ON slots BEGIN
        UPDATE slots SET
            slots = slots - old.slots,
            average = average
                + (max((new.released_boot - old.acquired_boot) / max(old.slots, 1),
                       {MINIMUM_OCCUPANCY_SECONDS_PER_SLOT}) - average)
                    / ({OCCUPANCY_SAMPLES_MULTIPLIER} * max("limit", 1))
        WHERE {total_of("old.limit_id")};
        INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_wall, released_wall, waited_seconds,
            thread, label, numbers, ending)
        VALUES (
            old.limit_id, coalesce(old."limit", (SELECT "limit" FROM slots WHERE {total_of("old.limit_id")})),
            old.owner_id, old.serial, old.slots, old.acquired_wall,
            CASE WHEN old.ending IS NOT {UNSEEN} THEN old.acquired_wall + (new.released_boot - old.acquired_boot) END,
            coalesce(old.waited_seconds, 0), old.thread, old.label, old.numbers, old.ending
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
    CREATE TRIGGER refusals_trimmed AFTER INSERT ON refusals WHEN new.seq % {HISTORY_SLACK_ROWS} = 0 BEGIN
        DELETE FROM refusals WHERE seq <= new.seq - {HISTORY_ROWS};
    END
    """,
    # A simple request is refused once when it is queued; `core.rules.denied_slots` says the same in Python.
    f"""
    CREATE TRIGGER queued AFTER INSERT ON waiters WHEN new.limit_ids IS NULL AND new.state = {WAITING} BEGIN
        INSERT INTO queue VALUES (new.limit_id, new.ticket);
        UPDATE slots SET
            denied = max(0.0, denied - max(0.0, new.enqueued_boot - denied_at) / average) + new.slots,
            denied_at = new.enqueued_boot
        WHERE {total_of("new.limit_id")};
    END
    """,
    f"""
    CREATE TRIGGER queued_on_several AFTER INSERT ON waiters
    WHEN new.limit_ids IS NOT NULL AND new.state = {WAITING} BEGIN
        INSERT INTO queue SELECT value, new.ticket FROM json_each(new.limit_ids);
    END
    """,
    f"""
    CREATE TRIGGER requeued AFTER UPDATE OF limit_ids ON waiters BEGIN
        DELETE FROM queue WHERE limit_id = old.limit_id AND ticket = old.ticket;
        DELETE FROM queue
        WHERE ticket = old.ticket AND limit_id IN (SELECT value FROM json_each(coalesce(old.limit_ids, '[]')));
        INSERT INTO queue SELECT value, new.ticket FROM json_each(new.limit_ids) WHERE new.state = {WAITING};
    END
    """,
    f"""
    CREATE TRIGGER admitted AFTER UPDATE OF state ON waiters WHEN new.state = {GRANTED} AND new.limit_ids IS NULL BEGIN
        UPDATE slots SET released_boot = new.granted_boot
        WHERE limit_id = new.limit_id AND owner_id = new.giver_id AND serial = new.given_serial;
        INSERT INTO slots (limit_id, "limit", owner_id, serial, slots, acquired_wall, acquired_boot, thread, label,
            context, waited_seconds, ticket)
        VALUES (
            new.limit_id, (SELECT "limit" FROM slots WHERE {total_of("new.limit_id")}), new.owner_id, new.serial,
            new.slots, new.granted_wall, new.granted_boot, new.thread,
            CASE WHEN instr(new.request, '>') THEN substr(new.request, instr(new.request, '>') + 1) END, new.context,
            new.granted_boot - new.enqueued_boot, new.ticket
        );
        DELETE FROM waiters WHERE ticket = new.ticket;
    END
    """,
    f"""
    CREATE TRIGGER answered AFTER UPDATE OF state ON waiters
    WHEN new.state <> {WAITING} AND (new.state <> {GRANTED} OR new.limit_ids IS NOT NULL) BEGIN
        DELETE FROM queue WHERE limit_id = new.limit_id AND ticket = new.ticket;
        DELETE FROM queue
        WHERE ticket = new.ticket AND limit_id IN (SELECT value FROM json_each(coalesce(new.limit_ids, '[]')));
    END
    """,
    """
    CREATE TRIGGER unqueued AFTER DELETE ON waiters BEGIN
        DELETE FROM queue WHERE limit_id = old.limit_id AND ticket = old.ticket;
    END
    """,
    """
    CREATE TRIGGER unqueued_from_several AFTER DELETE ON waiters WHEN old.limit_ids IS NOT NULL BEGIN
        DELETE FROM queue WHERE ticket = old.ticket AND limit_id IN (SELECT value FROM json_each(old.limit_ids));
    END
    """,
    f"""
    CREATE TRIGGER defined AFTER INSERT ON limits BEGIN
        INSERT INTO slots (limit_id, owner_id, serial, slots, "limit", revision, decay, average, denied, denied_at)
        VALUES (
            new.id, {TOTALS_ROW}, 0, 0, new."limit", {_REVISION}, {_DECAY}, {INITIAL_AVERAGE_OCCUPANCY_SECONDS}, 0, 0
        );
    END
    """,
    f"""
    CREATE TRIGGER redefined AFTER UPDATE ON limits BEGIN
        UPDATE slots SET "limit" = new."limit", revision = {_REVISION}, decay = {_DECAY} WHERE {total_of("new.id")};
    END
    """,
    f"""
    CREATE TRIGGER deleted AFTER DELETE ON limits BEGIN
        INSERT INTO past_limits (id, uuid, name) VALUES (old.id, old.uuid, old.name);
        DELETE FROM past_limits WHERE seq <= (SELECT max(seq) FROM past_limits) - {HISTORY_ROWS};
        DELETE FROM slots WHERE limit_id = old.id;
    END
    """,
    f"""
    CREATE TRIGGER departed AFTER DELETE ON owners BEGIN
        INSERT INTO past_owners (id, pid, command) VALUES (old.id, old.pid, old.command);
        DELETE FROM past_owners WHERE seq <= (SELECT max(seq) FROM past_owners) - {HISTORY_ROWS};
    END
    """,
)

CREATE_ALL: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    *TABLES,
    *TRIGGERS,
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
