"""The statements that are longer than a line: the fast ones, with those that read whole rows."""

from __future__ import annotations

from typing import Final

from localconc._engine.core.records import OwnerRow, WaiterRow
from localconc._engine.store.rows.schema import GRANTED, TOTALS_ROW, WAITING, total_of

#: Selects the rows of holders, without totals and an operator's slots.
HELD: Final = f"slots.owner_id > {TOTALS_ROW}"

# The fast statements are for one enforced limit without a pause; without decay, but for the one of rate_limit. Their
# triggers keep the rules that `queue.turns` has for all other cases.

#: Acquire slots if there is room and no queue.
ACQUIRE_FAST: Final = """
    INSERT INTO slots (limit_id, revision, "limit", owner_id, serial, slots, acquired_wall, acquired_boot, thread,
        label, context)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

#: Take slots of a limit with decay if they fit and there is no queue; else it raises `sqlite3.IntegrityError`.
RATE_LIMIT_FAST: Final = "INSERT INTO rate_calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

#: Queue a simple request if there is no room, or a queue, and the caller still knows the definition; return its ticket.
#: A request on a paused limit goes by the rules, which tell it until when it waits.
ENQUEUE_FAST: Final = f"""
    INSERT INTO waiters (owner_id, serial, state, slots, limit_id, request, thread, context, has_end, address, secret,
        waiting_since, enqueued_boot)
    SELECT ?, ?, {WAITING}, ?, limit_id, ?, ?, ?, ?, ?, ?, ?, ? FROM slots WHERE {total_of()} AND revision = ?
        AND (paused_until IS NULL OR paused_until <= ?)
        AND (slots + ? > "limit" OR EXISTS (SELECT 1 FROM queue WHERE queue.limit_id = slots.limit_id))
    RETURNING ticket
"""

#: Returns a row if requests are queued on a limit.
HAS_QUEUE: Final = "SELECT 1 FROM queue WHERE limit_id = ? LIMIT 1"

RELEASE_DRAINING: Final = """
    UPDATE slots SET released_boot = ? WHERE limit_id = ? AND owner_id = ? AND serial = ?
"""

#: Release the slots of a holder of a limit without decay.
RELEASE: Final = f"{RELEASE_DRAINING} AND drained_at IS NULL"

#: Release slots if no request is queued for them.
RELEASE_FAST: Final = f"""
    {RELEASE} AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.limit_id = slots.limit_id)
"""

#: Release the slots of a holder and admit the first waiter, as `RELEASE` and `ADMIT_FAST` would, if the rules would not
#: admit any more: there is no room left then, or no other waiter.
HAND_OVER: Final = f"""
    UPDATE waiters SET state = {GRANTED}, granted_wall = ?, granted_boot = ?, giver_id = ?, given_serial = ?
    WHERE ticket = (SELECT ticket FROM queue WHERE limit_id = ? ORDER BY ticket LIMIT 1)
        AND limit_ids IS NULL AND typeof(slots) = 'integer'
        AND EXISTS (
            SELECT 1 FROM slots AS total JOIN slots AS given
            WHERE {total_of("waiters.limit_id", of="total.")}
                AND given.limit_id = waiters.limit_id AND given.owner_id = ? AND given.serial = ?
                AND given.drained_at IS NULL AND total.revision IS NOT NULL AND total.decay IS NULL
                AND (total.paused_until IS NULL OR total.paused_until <= ?)
                AND total.slots - given.slots + waiters.slots <= total."limit"
                AND (
                    total.slots - given.slots + waiters.slots = total."limit"
                    OR (SELECT count(*) FROM (SELECT 1 FROM queue WHERE limit_id = waiters.limit_id LIMIT 2)) = 1
                )
        )
    RETURNING address, serial, secret
"""

#: Admit the first waiter of a limit, if its request is simple, the limit has no decay and no pause, and there is room.
ADMIT_FAST: Final = f"""
    UPDATE waiters SET state = {GRANTED}, granted_wall = ?, granted_boot = ?
    WHERE ticket = (SELECT ticket FROM queue WHERE limit_id = ? ORDER BY ticket LIMIT 1)
        AND limit_ids IS NULL AND typeof(slots) = 'integer'
        AND EXISTS (
            SELECT 1 FROM slots AS total WHERE {total_of(of="total.")}
                AND revision IS NOT NULL AND decay IS NULL AND total.slots + waiters.slots <= "limit"
                AND (paused_until IS NULL OR paused_until <= ?)
        )
    RETURNING
        (SELECT "limit" - total.slots FROM slots AS total WHERE {total_of(of="total.")}),
        slots, address, serial, secret
"""

LIMIT_COLUMNS = """
    definition.id, definition.uuid, definition.name, definition."limit", definition.active, definition.configured,
    definition.declared, definition.slot_decay_per_second, definition.revision, definition.created, definition.updated,
    total.slots, coalesce(total.drained_at, 0), total.drained_at_wall, total.average, total.denied, total.denied_at,
    total.paused_until, total.paused_until_wall,
    (SELECT ticket FROM queue WHERE limit_id = definition.id ORDER BY ticket LIMIT 1)
"""
LIMITS: Final = f"""
    limits AS definition JOIN slots AS total
        ON {total_of("definition.id", of="total.")}
"""
SELECT_LIMIT = f"SELECT {LIMIT_COLUMNS} FROM {LIMITS} WHERE definition."
LIMIT_BY_NAME: Final = f"{SELECT_LIMIT}name = ?"
LIMIT_BY_ID: Final = f"{SELECT_LIMIT}id = ?"
LIMIT_BY_UUID: Final = f"{SELECT_LIMIT}uuid = ?"
ALL_LIMITS: Final = f"SELECT {LIMIT_COLUMNS} FROM {LIMITS} ORDER BY definition.name"

WAITER_COLUMNS: Final = ", ".join(f"waiters.{column}" for column in WaiterRow._fields)
INSERT_WAITER: Final = f"""
    INSERT INTO waiters ({", ".join(WaiterRow._fields)}) VALUES (nullif(?, 0){", ?" * (len(WaiterRow._fields) - 1)})
"""
WAITER: Final = f"SELECT {WAITER_COLUMNS} FROM waiters WHERE ticket = ?"
FIRST_WAITER: Final = f"""
    SELECT {WAITER_COLUMNS} FROM queue JOIN waiters USING (ticket)
    WHERE queue.limit_id = ? ORDER BY queue.ticket LIMIT 1
"""
OWNER_COLUMNS: Final = ", ".join(OwnerRow._fields)

#: Note which slots of a limit a holder has.
SET_NUMBERS: Final = "UPDATE slots SET numbers = ? WHERE limit_id = ? AND owner_id = ? AND serial = ?"
