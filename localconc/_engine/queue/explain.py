"""Why a request is not admitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core import display, rules
from localconc._engine.core.arguments import printable
from localconc._engine.store.rows import listings

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from localconc._engine.core.records import LimitRow
    from localconc._engine.store.rows.ledger import Ledger
    from localconc._engine.store.rows.listings import HolderEntry, Share

#: How many holders an error message names before it says «and more».
MAX_NAMED_HOLDERS: Final = 5

#: How many characters of a holder's command an error message shows.
MAX_COMMAND_CHARACTERS: Final = 40

#: Of how many limits a process keeps the holders that it last read.
MAX_KNOWN_LIMITS: Final = 64


class Reason(NamedTuple):
    """What a request waits for.

    Attributes:
        text: a sentence for each limit.
        names: the limits.
        requests_ahead: how many requests are ahead of it.
        entries: the holders of the limits, or the first few of each.
        owner_ids: the processes of all holders.
    """

    text: str
    names: tuple[str, ...]
    requests_ahead: int = 0
    entries: tuple[HolderEntry, ...] = ()
    owner_ids: frozenset[int] = frozenset()


class HolderLists:
    """The holders of limits as this process last read them.

    If many requests give up at once, their errors share one list. Reading and keeping a thousand holders for each of a
    thousand errors would take seconds, and hundreds of megabytes.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, list[Share], tuple[HolderEntry, ...]]] = {}

    def read(self, connection: sqlite3.Connection, row: LimitRow, shares: list[Share]) -> tuple[HolderEntry, ...]:
        """Return the holders of a limit, oldest first; `shares` are the present ones."""
        known = self._known.get(row.id)
        if known is not None and known[:2] == (row.name, shares):
            return known[2]
        entries = tuple(listings.holders(connection, row.id))
        if len(self._known) >= MAX_KNOWN_LIMITS:
            self._known.clear()
        self._known[row.id] = row.name, shares, entries
        return entries


class LedgerAt(NamedTuple):
    """The store at one moment, by both clocks."""

    ledger: Ledger
    now: float
    wall: float


class Caller(NamedTuple):
    """Who asks, and in which thread and task: in the reason, its own holds are said to be its own."""

    owner_id: int
    contexts: tuple[int, ...]


def explain(
    at: LedgerAt,
    limit_ids: Iterable[int],
    ticket: int | None,
    caller: Caller,
    slots: int,
    lists: HolderLists | None = None,
) -> Reason:
    """Say what a request waits for.

    Args:
        lists: where to look up all holders. None reads the first few of each limit: enough for the text, and for a
            transaction during which other processes wait for the store.
    """
    connection, texts, names, ahead = at.ledger.connection, [], [], 0
    holders: tuple[HolderEntry, ...] = ()
    owner_ids: set[int] = set()
    for row in at.ledger.limits_with_ids(limit_ids):
        entries = tuple(listings.first_holders(connection, row.id, MAX_NAMED_HOLDERS + 1))
        shares: Sequence[HolderEntry | Share] = entries
        if len(entries) > MAX_NAMED_HOLDERS:
            shares = by_process = listings.shares(connection, row.id)
            entries = entries if lists is None else lists.read(connection, row, by_process)
        before = listings.requests_ahead(connection, row.id, ticket)
        held = sum(share.slots for share in shares)
        texts.append(_sentence(at, row, entries, held, before, caller, slots))
        names.append(row.name)
        holders += entries
        owner_ids.update(share.owner_id for share in shares)
        ahead = max(ahead, before)
    return Reason(". ".join(texts), tuple(names), ahead, holders, frozenset(owner_ids))


def _sentence(
    at: LedgerAt, row: LimitRow, entries: Sequence[HolderEntry], held: int, ahead: int, caller: Caller, slots: int
) -> str:
    """Say what a request waits for on one limit, of which processes hold this many slots."""
    queued = f"{ahead} request(s) ahead" if ahead else "nobody ahead"
    if row.limit == 0:
        return f"{row.name!r} has limit=0, which admits nobody; {queued}"
    text = f"{row.name!r}: {display.active_slots(row, at.now)} of {row.limit} in use"
    if row.paused_until is not None and row.paused_until > at.now:
        until = display.moment_text(at.wall + row.paused_until - at.now)
        text += f", paused for {row.paused_until - at.now:.1f} s until {until}"
    if entries:
        named = ", ".join(_holder(entry, at.wall, caller) for entry in entries[:MAX_NAMED_HOLDERS])
        text += f", held by {named}{', and more' if len(entries) > MAX_NAMED_HOLDERS else ''}"
    unowned = 0 if row.decay > 0 else row.held - held
    if unowned > 0:
        text += f", {unowned} of them set by an operator"
    if row.decay > 0 and not entries:
        due = rules.fits_at(row.empty_at, slots, row.limit, row.decay) - at.now
        if due > 0:
            text += f", the next {slots} slot(s) are due in {due:.3g} s"
    return f"{text}; {queued}"


def _holder(entry: HolderEntry, wall: float, caller: Caller) -> str:
    seconds = f"for {_age(wall - entry.acquired_wall)}"
    label = f" {printable(entry.label)!r}" if entry.label else ""
    if entry.owner_id == caller.owner_id:
        if entry.context in caller.contexts:
            return f"this very thread or task ({printable(entry.thread)}){label} {seconds}"
        return f"this process, thread {printable(entry.thread)}{label} {seconds}"
    command = printable(entry.command)
    if len(command) > MAX_COMMAND_CHARACTERS:
        command = command[: MAX_COMMAND_CHARACTERS - 1] + "…"
    return f"pid {entry.pid} ({command}){label} {seconds}"


def _age(seconds: float) -> str:
    """Return how long something has lasted, to the millisecond."""
    return "less than 1 ms" if seconds < 0.001 else f"{float(f'{round(seconds, 3):.3g}'):g} s"
