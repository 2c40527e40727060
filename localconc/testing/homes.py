"""A home of a test's own; and no limits at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from localconc._engine import homes
from localconc._engine.switch import DISABLED
from localconc.testing.block import Block, environment
from localconc.testing.leaks import left_in_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["disabled", "opened_home", "temporary_home"]


def temporary_home() -> Block[Path]:
    """A fresh, empty home for this process and the children it starts, removed at the end of the block.

    >>> with temporary_home() as directory:
    ...     ensure_limit("database", 2)
    ...     run_import()
    >>> @temporary_home()
    ... def test_import(): ...

    It sets `LOCALCONC_HOME`, so it counts for every thread of the process. Blocks nest: the inner home counts until its
    end. A decorated function, which may be a coroutine function, gets a home of its own at each call. The children of a
    `multiprocessing` fork server that was started before the block have the environment of that moment, as ever.

    Returns:
        A context manager that yields the home's directory, and a decorator.

    Warns:
        UserWarning: somebody still holds slots, or waits for some, at the end of the block; it names them. What this
            process itself holds there is forgotten.
    """
    return Block(lambda: opened_home(_warn))


def _warn(found: list[str]) -> None:
    lines = "\n".join(f"  {line}" for line in found)
    warnings.warn(f"A temporary home was left while slots in it are in use:\n{lines}", UserWarning, stacklevel=5)


@contextmanager
def opened_home(report: Callable[[list[str]], None]) -> Iterator[Path]:
    """A fresh home for a block; at its end the report gets a line for everybody left behind, if there are any."""
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
    """Remove a home; returns who still used it."""
    with environment("LOCALCONC_HOME", str(directory)):
        found = left_in_home()
        homes.machine("temporary_home()").disown()  # or a late release would build the home anew
    homes.forget(directory)
    shutil.rmtree(directory, ignore_errors=True)
    return found


def disabled() -> Block[None]:
    """No limits at all in a block: calls of `concurrency` and `rate_limit` pass at once.

    >>> with disabled():
    ...     run_import()
    >>> @disabled()
    ... async def test_import(): ...

    Arguments are still checked; nothing is enforced, and the store is not touched. Calls that set or read limits do as
    always. It sets `LOCALCONC_DISABLED=1`, so it counts for every thread of the process and for the children it starts;
    set the variable yourself to switch limits off for a whole run (empty, or `0`, is on). Slots taken before the block
    stay held. Blocks nest.

    Returns:
        A context manager, and a decorator of functions and of coroutine functions.
    """
    return Block(lambda: environment(DISABLED, "1"))
