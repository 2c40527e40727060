"""Why a request is not admitted, in words and in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core import rules, views
from localconc._engine.core.arguments import printable
from localconc._engine.store import listings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.core.records import LimitRow
    from localconc._engine.store.listings import HolderEntry
    from localconc._engine.store.store import Transaction

#: Holders that an error message names before it says «and more».
MAX_NAMED_HOLDERS: Final = 5

#: Characters of a holder's command that an error message shows.
MAX_COMMAND_CHARACTERS: Final = 40


class Reason(NamedTuple):
    """What a request waits for: a sentence, the holders in its way, and how many requests are ahead of it."""

    text: str
    names: tuple[str, ...]
    holders: list[views.Holder]
    requests_ahead: int


class Caller(NamedTuple):
    """Who asks: in the reason, its own holds are said to be its own."""

    owner_id: int
    context: int


def explain(txn: Transaction, rows: Iterable[LimitRow], ticket: int | None, caller: Caller, slots: int) -> Reason:
    """Say what a request waits for."""
    texts, names, holders, ahead = [], [], [], 0
    for row in rows:
        current = txn.ledger.limit_with_id(row.id) or row
        entries = listings.holders(txn.ledger.connection, row.id)
        before = listings.requests_ahead(txn.ledger.connection, row.id, ticket)
        texts.append(_sentence(txn, current, entries, before, caller, slots))
        names.append(current.name)
        holders += [entry.shown() for entry in entries]
        ahead = max(ahead, before)
    return Reason(". ".join(texts), tuple(names), holders, ahead)


def _sentence(
    txn: Transaction, row: LimitRow, entries: list[HolderEntry], ahead: int, caller: Caller, slots: int
) -> str:
    queued = f"{ahead} request(s) ahead" if ahead else "nobody ahead"
    if row.limit == 0:
        return f"{row.name!r} has limit=0, which admits nobody; {queued}"
    text = f"{row.name!r}: {views.active_slots(row, txn.now)} of {row.limit} in use"
    if row.paused_until is not None and row.paused_until > txn.now:
        until = views.moment(txn.wall + row.paused_until - txn.now).isoformat(timespec="seconds")
        text += f", paused for {row.paused_until - txn.now:.1f} s until {until}"
    if entries:
        named = ", ".join(_holder(entry, txn.wall, caller) for entry in entries[:MAX_NAMED_HOLDERS])
        text += f", held by {named}{', and more' if len(entries) > MAX_NAMED_HOLDERS else ''}"
    elif row.decay > 0:
        due = rules.fits_at(row.empty_at, slots, row.limit, row.decay) - txn.now
        if due > 0:
            text += f", the next {slots} slot(s) are due in {due:.3g} s"
    return f"{text}; {queued}"


def _holder(entry: HolderEntry, wall: float, caller: Caller) -> str:
    seconds = f"for {max(0.0, wall - entry.acquired_wall):.3g} s"
    label = f" {printable(entry.label)!r}" if entry.label else ""
    if entry.owner_id == caller.owner_id:
        if entry.context and entry.context == caller.context:
            return f"this very thread or task ({printable(entry.thread)}){label} {seconds}"
        return f"this process, thread {printable(entry.thread)}{label} {seconds}"
    command = printable(entry.command)
    if len(command) > MAX_COMMAND_CHARACTERS:
        command = command[: MAX_COMMAND_CHARACTERS - 1] + "…"
    return f"pid {entry.pid} ({command}){label} {seconds}"
