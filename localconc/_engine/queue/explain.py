"""Why a request is not admitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core import rules, views
from localconc._engine.core.arguments import printable
from localconc._engine.store.rows import listings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.core.records import LimitRow
    from localconc._engine.store.rows.ledger import Ledger
    from localconc._engine.store.rows.listings import HolderEntry

#: How many holders an error message names before it says «and more».
MAX_NAMED_HOLDERS: Final = 5

#: How many characters of a holder's command an error message shows.
MAX_COMMAND_CHARACTERS: Final = 40


class Reason(NamedTuple):
    """What a request waits for: a sentence, the holders of its limits, and how many requests are ahead of it.

    A transaction makes it, while other processes wait for the store. So it converts the holders for people only when a
    caller asks for `holders`, because the first conversion loads pendulum.
    """

    text: str
    names: tuple[str, ...]
    entries: tuple[HolderEntry, ...]
    requests_ahead: int

    @property
    def holders(self) -> list[views.Holder]:
        """The holders as people see them."""
        return [entry.shown() for entry in self.entries]


class LedgerAt(NamedTuple):
    """The store at one moment, by both clocks."""

    ledger: Ledger
    now: float
    wall: float


class Caller(NamedTuple):
    """Who asks, and in which thread and task: in the reason, its own holds are said to be its own."""

    owner_id: int
    contexts: tuple[int, ...]


def explain(at: LedgerAt, limit_ids: Iterable[int], ticket: int | None, caller: Caller, slots: int) -> Reason:
    """Say what a request waits for."""
    texts, names, ahead = [], [], 0
    holders: list[HolderEntry] = []
    for row in at.ledger.limits_with_ids(limit_ids):
        entries = listings.holders(at.ledger.connection, row.id)
        before = listings.requests_ahead(at.ledger.connection, row.id, ticket)
        texts.append(_sentence(at, row, entries, before, caller, slots))
        names.append(row.name)
        holders += entries
        ahead = max(ahead, before)
    return Reason(". ".join(texts), tuple(names), tuple(holders), ahead)


def _sentence(at: LedgerAt, row: LimitRow, entries: list[HolderEntry], ahead: int, caller: Caller, slots: int) -> str:
    queued = f"{ahead} request(s) ahead" if ahead else "nobody ahead"
    if row.limit == 0:
        return f"{row.name!r} has limit=0, which admits nobody; {queued}"
    text = f"{row.name!r}: {views.active_slots(row, at.now)} of {row.limit} in use"
    if row.paused_until is not None and row.paused_until > at.now:
        until = views.moment_text(at.wall + row.paused_until - at.now)
        text += f", paused for {row.paused_until - at.now:.1f} s until {until}"
    if entries:
        named = ", ".join(_holder(entry, at.wall, caller) for entry in entries[:MAX_NAMED_HOLDERS])
        text += f", held by {named}{', and more' if len(entries) > MAX_NAMED_HOLDERS else ''}"
    unowned = 0 if row.decay > 0 else row.held - sum(entry.slots for entry in entries)
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
