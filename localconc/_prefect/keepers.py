"""The keepers of this process: one for each server, through forks, until the exit."""

from __future__ import annotations

import atexit
import os
import sys

from localconc._locks import new_lock
from localconc._prefect.keeper import PrefectKeeper
from localconc._prefect.server.address import Address, address_in_settings

_keepers: dict[Address, PrefectKeeper] = {}
_lock = new_lock()


def open_keeper() -> PrefectKeeper:
    """Return the keeper for the server that Prefect's settings name at this moment.

    Raises:
        StoreError: Prefect is not installed, no address is set, or it can't be used.
    """
    address = address_in_settings()
    keeper = _keepers.get(address)
    if keeper is not None and keeper.pid == os.getpid():
        return keeper
    if keeper is not None:  # a fork that Python does not know of
        _after_fork_in_child()
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


def _before_fork() -> None:
    _lock.acquire()
    for keeper in _keepers.values():
        keeper.before_fork()


def _after_fork_in_parent() -> None:
    for keeper in _keepers.values():
        keeper.after_fork_in_parent()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = new_lock()
    for keeper in _keepers.values():
        keeper.after_fork_in_child()
    _keepers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(close_keepers)
