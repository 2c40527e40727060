"""A home for one test, in which nothing may be left at its end."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from localconc._engine import registry
from localconc._engine.operations.reading import holders, notice_deaths, waiters
from localconc.errors import StoreError
from localconc.testing.block import Block, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from uuid import UUID

    from localconc._engine.core.views import Holder, Waiter

__all__ = ["assert_no_leaks", "left_in_home", "opened_home", "temporary_home"]


def temporary_home() -> Block[Path]:
    """Use a fresh, empty home in this process and the children it starts; it is removed at the end of the block.

    >>> with temporary_home() as directory:
    ...     ensure_limit("database", 2)
    ...     run_import()
    >>> @temporary_home()
    ... def test_import(): ...

    The block sets `LOCALCONC_HOME`, so it applies to every thread of the process. Blocks nest: the inner home is used
    until its end. A decorated function, which may be a coroutine function, gets a home of its own at each call. The
    children of a `multiprocessing` fork server keep the environment of the moment at which that server was started.

    Returns:
        A context manager whose `with` returns the home's directory, and which also decorates functions.

    Warns:
        UserWarning: at the end of the block, slots are still held or waited for; it names the holders and waiters. What
            this process holds there is forgotten.
    """
    return Block(lambda: opened_home(_warn))


def _warn(found: list[str]) -> None:
    lines = "\n".join(f"  {line}" for line in found)
    warnings.warn(f"A temporary home was left while slots in it are in use:\n{lines}", UserWarning, stacklevel=5)


@contextmanager
def opened_home(report: Callable[[list[str]], None]) -> Iterator[Path]:
    """Use a fresh home in a block; at its end, the report gets a line for each holder and waiter, if there are any."""
    directory = Path(tempfile.mkdtemp(prefix="localconc-"))
    opened_by = os.getpid()
    with environment("LOCALCONC_HOME", str(directory)):
        try:
            yield directory
        finally:
            if os.getpid() == opened_by:  # a forked child that leaves the block leaves its parent's home alone
                found = _close(directory)
                if found:
                    report(found)


def _close(directory: Path) -> list[str]:
    """Remove a home; return a line for each holder and waiter that was left."""
    with environment("LOCALCONC_HOME", str(directory)):
        found = left_in_home()
        registry.current().holdings.forget_all()  # or a late release would build the home anew
    registry.forget(directory)
    shutil.rmtree(directory, ignore_errors=True)
    return found


# ---- leaks -----------------------------------------------------------------------------------------------------------


def assert_no_leaks(name_or_id: str | UUID | None = None) -> None:
    """Check that no slots are held or waited for in the home that the environment names.

    >>> def test_import_releases_everything():
    ...     run_import()
    ...     assert_no_leaks()

    Slots of a process that has died are no leak, because they are freed automatically. Slots acquired by `rate_limit`,
    or set by an operator, have no holder.

    Args:
        name_or_id: of one limit; None for all.

    Raises:
        AssertionError: it names each holder with its slots, and each waiter.
        LimitNotFoundError: there is no such limit.
        StoreError: the database can't be used.
    """
    __tracebackhide__ = True
    found = _left_behind(name_or_id)
    if found:
        raise AssertionError("Slots were not given back:\n" + "\n".join(f"  {line}" for line in found))


def left_in_home() -> list[str]:
    """Return a line for each living holder and waiter of this home; none if a test has made the home unusable."""
    with suppress(StoreError):
        return _left_behind(None)
    return []


def reap_the_dead() -> None:
    """Release the slots of dead processes, although no waiter needs them yet."""
    notice_deaths(registry.current("assert_no_leaks()"))


def _left_behind(name_or_id: str | UUID | None) -> list[str]:
    engine = registry.current("assert_no_leaks()")
    if name_or_id is None and _is_missing(engine.store.database.path):
        return []  # the question does not create a store
    reap_the_dead()  # on a virtual clock, reading does not
    return [
        f"{holder.name!r}: {holder.slots} slot(s) held by {_described(holder)} since {_clock_time(holder.acquired_at)}"
        for holder in holders(engine, name_or_id)
    ] + [
        f"{', '.join(map(repr, waiter.names))}: waited for by {_described(waiter)} "
        f"since {_clock_time(waiter.waiting_since)}"
        for waiter in waiters(engine, name_or_id)
    ]


def _is_missing(path: Path) -> bool:
    """Return whether there is no such file. (Since Python 3.14, `Path.exists` says so of every error.)"""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # the store says what is wrong
    return False


def _described(participant: Holder | Waiter) -> str:
    process = "this process" if participant.pid == os.getpid() else f"`{participant.command}`"
    label = f" {participant.label!r}" if participant.label else ""
    return f"pid {participant.pid} ({process}, thread {participant.thread!r}){label}"


def _clock_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
