"""Who still holds or waits at a moment when nobody should."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from localconc._engine import homes
from localconc._engine.administration import holders, waiters
from localconc._engine.blocking import run
from localconc.errors import StoreError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


__all__ = ["assert_no_leaks", "left_in_home", "reap_the_dead"]


def assert_no_leaks(name_or_id: str | UUID | None = None) -> None:
    """Make sure that nobody holds slots, or waits for some, in the home that the environment names.

    >>> def test_import_gives_everything_back():
    ...     run_import()
    ...     assert_no_leaks()

    Slots of a process that has died are no leak: they come back by themselves. Slots taken by `rate_limit`, or set by
    an operator, are held by nobody.

    Args:
        name_or_id: of one limit; None for all.

    Raises:
        AssertionError: it names who holds which slots since when, and who waits.
        LimitNotFoundError: there is no such limit.
        StoreError: the database can't be used.
    """
    __tracebackhide__ = True
    found = left_behind(name_or_id)
    if found:
        raise AssertionError("Slots were not given back:\n" + "\n".join(f"  {line}" for line in found))


def left_behind(name_or_id: str | UUID | None = None) -> list[str]:
    """Everybody living who holds or waits, a line each; the store is not created for the question."""
    engine = homes.machine("assert_no_leaks()")
    if name_or_id is None and not engine.database.path.exists():
        return []
    reap_the_dead()
    return [
        f"{holder.name!r}: {holder.slots} slot(s) held by {_who(holder.pid, holder.thread, holder.command)} "
        f"since {_clock_time(holder.acquired_at)}"
        for holder in holders(engine, name_or_id)
    ] + [
        f"{', '.join(map(repr, waiter.names))}: waited for by {_who(waiter.pid, waiter.thread, waiter.command)} "
        f"since {_clock_time(waiter.waiting_since)}"
        for waiter in waiters(engine, name_or_id)
    ]


def left_in_home() -> list[str]:
    """Everybody living who holds or waits in this home; nobody in one that a test has made unusable."""
    with suppress(StoreError):
        return left_behind()
    return []


def reap_the_dead() -> None:
    """Give back what dead processes hold, without waiting for somebody who needs it."""
    engine = homes.machine("assert_no_leaks()")

    def operation() -> None:
        engine.reap_in_front(engine.look_up(lambda ledger: [row.id for row in ledger.all_limits()]))

    run(engine, operation)


def _who(pid: int, thread: str, command: str) -> str:
    process = "this process" if pid == os.getpid() else f"`{command}`"
    return f"pid {pid} ({process}, thread {thread!r})"


def _clock_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
