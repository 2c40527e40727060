"""The keepers of this process: one for each server, through forks, until the exit."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING

from localconc._locks import ForkLocks, lock_of_process, new_lock
from localconc._prefect.asking.sender import FORK_PATIENCE_SECONDS
from localconc._prefect.keeper import PrefectKeeper
from localconc._prefect.server.address import Address, address_in_settings

if TYPE_CHECKING:
    from threading import RLock

_keepers: dict[Address, PrefectKeeper] = {}
_lock = new_lock()
_pid = os.getpid()


def open_keeper() -> PrefectKeeper:
    """Return the keeper for the server that Prefect's settings name at this moment.

    Raises:
        StoreError: Prefect is not installed, no address is set, or it can't be used.
    """
    _notice_fork()
    address = address_in_settings()
    keeper = _keepers.get(address)
    if keeper is not None:
        return keeper
    with _lock:
        keeper = _keepers.get(address)
        if keeper is None:
            keeper = _keepers[address] = PrefectKeeper(address)
            _close_at_worker_exit()
        return keeper


def server_address() -> str:
    """Return the address of the server, without credentials, as messages show it.

    Raises:
        StoreError: Prefect is not installed, or no address is set.
    """
    return address_in_settings().shown


def close_keepers() -> None:
    """Close all keepers and forget them; the next use makes them anew."""
    _notice_fork()
    with _lock:
        keepers = list(_keepers.values())
        _keepers.clear()
    for keeper in keepers:
        keeper.close()


def _close_at_worker_exit() -> None:
    """Release at the end of a process of multiprocessing, too, which runs no `atexit`."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, close_keepers, exitpriority=0)


_fork_locks = ForkLocks()
_noticing: dict[int, RLock] = {}


def _take_locks() -> None:
    _fork_locks.take(_lock)
    for keeper in list(_keepers.values()):
        _fork_locks.take(keeper.sender.asking, FORK_PATIENCE_SECONDS)


def _after_fork_in_child() -> None:
    global _lock, _pid
    for keeper in list(_keepers.values()):
        keeper.after_fork_in_child()
    _keepers.clear()
    _lock = new_lock()
    _pid = os.getpid()


def _notice_fork() -> None:
    """Do in a child what its hook has not done: C code forks without hooks, and a handler may raise in one."""
    if os.getpid() != _pid:
        with lock_of_process(_noticing):  # of the threads that have begun since, one does it
            if os.getpid() != _pid:
                _after_fork_in_child()


_fork_locks.register(_take_locks, None, _after_fork_in_child)
atexit.register(close_keepers)
