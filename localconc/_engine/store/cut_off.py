"""Children that must not touch SQLite: those that were forked while another thread of the parent was inside it.

That thread may have held SQLite's mutexes, those of one connection and those of all. In the child nobody releases them,
so whatever touches SQLite may wait forever. Python's own forks wait for the other threads before. But C code forks
without that, and a signal handler that raises twice can make Python do so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine.core.errors import shown
from localconc._locks import is_used_by_others
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from threading import RLock

_is_cut_off = False


def is_cut_off() -> bool:
    """Return whether this process must not touch SQLite, not even to close a connection."""
    return _is_cut_off


def cut_off_if_used(locks: Iterable[RLock], *, is_late: bool) -> None:
    """Cut this forked child off, and all that it forks, if a thread of the parent was using one of the databases.

    Args:
        locks: those of the databases.
        is_late: whether this is not the moment of the fork.
    """
    global _is_cut_off
    if any(is_used_by_others(lock, is_late=is_late) for lock in locks):
        _is_cut_off = True


def refuse_if_cut_off(path: Path) -> None:
    """Raise StoreError if this process must not touch SQLite."""
    if _is_cut_off:
        raise StoreError(
            f"This process can't use the database {shown(path)}: C code forked it while another thread of its parent "
            "used limits. Fork with os.fork, or before other threads use limits; or start a new program."
        )
