"""The keepers of limits in this process: an engine for each home, or a server, as the environment says."""

from __future__ import annotations

import atexit
import os
import threading
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from localconc import _environment as environment
from localconc._engine.core.clock import SystemClock
from localconc._engine.engine import Engine
from localconc._engine.homes.home import HOME_VARIABLE, SERVER, home, is_on_server
from localconc._engine.machine import Machine, loading
from localconc._engine.store.cut_off import cut_off_if_used
from localconc._engine.waiting.mailboxes.notifier import Notifier
from localconc._engine.waiting.mailboxes.pool import MailboxPool
from localconc._locks import ForkLocks, lock_of_process, new_lock
from localconc.errors import StoreError

if TYPE_CHECKING:
    from localconc._engine.core.clock import Clock
    from localconc._keeper import Keeper

#: The variable with the pid of a process whose time a test moves. Its children refuse to use limits, because they can't
#: share that time.
VIRTUAL_CLOCK: Final = "LOCALCONC_VIRTUAL_CLOCK"

#: The environment variables that `home()` depends on; the first one decides if it is set.
_home = environment.reader("LOCALCONC_HOME")
_other_variables: Final = [
    environment.reader(name) for name in ("HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "USERPROFILE")
]

_ENVIRON: Final = os.environ
_look_up, _HOME_KEY = environment.look_up("LOCALCONC_HOME")
_, _DISABLED_KEY = environment.look_up(environment.DISABLED)

_engines: dict[Path, Engine] = {}
_set_aside: dict[Path, Engine] = {}
_by_environment: dict[Any, Machine] = {}
_lock = new_lock()
_pid = getpid()
_clock: Clock | None = None
_is_alone = False
_is_ending = False


def keeper_unless_disabled() -> Keeper | None:
    """Return the current keeper, as fast as possible; None if limits are switched off."""
    if os.environ is not _ENVIRON or _look_up(_DISABLED_KEY) is not None:
        return None if environment.is_disabled() else keeper()
    home_variable = _look_up(_HOME_KEY)
    if home_variable and getpid() == _pid:
        machine = _by_environment.get(home_variable)
        if machine is not None:
            return machine
    return keeper()


def current(what: str = "This") -> Engine:
    """Return the engine of the home that the environment names at this moment.

    Args:
        what: the feature that needs it, with which an error message begins.

    Raises:
        NotSupportedError: a server keeps the limits.
    """
    return keeper().machine(what)


def refuse_server(what: str) -> None:
    """Raise at once if a feature needs this machine's engine, and a server keeps the limits.

    Args:
        what: the feature, with which the error message begins.

    Raises:
        NotSupportedError: a server keeps the limits.
    """
    if is_on_server():
        current(what)


def keeper() -> Keeper:
    """Return the keeper of the limits that the environment names at this moment: a home's engine, or a server."""
    notice_fork()
    key = _home() or tuple([variable() for variable in _other_variables])
    return _by_environment.get(key) or _find(key)


def _find(key: Any) -> Keeper:
    configured = os.environ.get(HOME_VARIABLE)
    if configured and configured.startswith(SERVER):
        return _server(configured)
    directory = home()
    with _lock:
        engine = _engines.get(directory)
        if engine is None:
            _refuse_foreign_time()
            engine = _engines[directory] = _make(directory)
        machine = Machine(engine)
        if not configured or os.path.isabs(configured):  # a relative one depends on the working directory
            _by_environment[key] = machine
        return machine


def _server(configured: str) -> Keeper:
    """Return a Prefect server as the keeper. This does not remember it, because its address may change."""
    if configured != SERVER:
        raise StoreError(
            f"LOCALCONC_HOME={SERVER} takes nothing behind the colon, but is {configured!r}: the address of the server "
            "comes from Prefect's settings, such as PREFECT_API_URL."
        )
    from localconc._prefect import open_keeper  # it is heavy, and few users have installed Prefect

    return open_keeper()


def _make(directory: Path) -> Engine:
    """Put an engine together with its mailboxes and its notifier."""
    mailboxes = MailboxPool(directory)
    engine = Engine(directory, _clock or SystemClock(), mailboxes, Notifier(directory, mailboxes))
    engine.is_alone = _is_alone
    if _is_ending:
        engine.holdings.release_in_caller()
    return engine


def _refuse_foreign_time() -> None:
    pid = os.environ.get(VIRTUAL_CLOCK)
    if pid and pid != str(os.getpid()):
        raise RuntimeError(
            f"This process (pid {os.getpid()}) was started by pid {pid} inside virtual_clock(), whose time no other "
            "process can share: test several processes without it."
        )


def use_clock(clock: Clock | None, *, is_alone: bool = False) -> None:
    """Let the engines of this process use another clock; None for the machine's own.

    An engine that holds slots by the machine's time keeps them. It is set aside until that time is back.

    Args:
        is_alone: whether no other process takes part, so that waiters need not look for lost wakeups and deaths.
    """
    global _clock, _is_alone
    with _lock:
        if _clock is None:
            _set_aside.update((directory, engine) for directory, engine in _engines.items() if engine.holdings.grants)
            for directory in _set_aside:
                _engines.pop(directory, None)
        _clock, _is_alone = clock, is_alone
        forget_all()
        if clock is None:
            _engines.update(_set_aside)
            _set_aside.clear()


def forget(directory: Path) -> None:
    """Close the engine of a home and forget it."""
    with _lock:
        engine = _engines.pop(directory, None)
        _by_environment.clear()
    if engine is not None:
        engine.close()


def forget_all() -> None:
    """Close all engines and forget them; the next use makes them anew."""
    notice_fork()
    with _lock:
        _by_environment.clear()
        for directory in list(_engines):
            forget(directory)


# ---- the end of the main thread --------------------------------------------------------------------------------------


def _on_main_thread_end() -> None:
    """Start no threads from now on: Python 3.12 refuses to, while it waits for the other threads to end."""
    global _is_ending
    notice_fork()
    with _lock:
        _is_ending = True
        for engine in _engines.values():
            engine.holdings.release_in_caller()


def _register_end() -> None:
    register = getattr(threading, "_register_atexit", None)  # not public, but concurrent.futures relies on it
    if register is None:
        return
    try:
        register(_on_main_thread_end)
    except RuntimeError:  # the main thread has ended already
        _on_main_thread_end()


_register_end()

# ---- forks -----------------------------------------------------------------------------------------------------------

_fork_locks = ForkLocks()
_noticing: dict[int, threading.RLock] = {}


def _all_engines() -> list[Engine]:
    return [*_engines.values(), *_set_aside.values()]


def _take_locks() -> None:
    _fork_locks.take(loading)
    _fork_locks.take(_lock)
    for engine in _all_engines():
        _fork_locks.take(engine.store.database.lock)


def _close_databases() -> None:
    """Close the connections, which must not cross a fork."""
    for engine in _all_engines():
        engine.store.database.close()


def _after_fork_in_child(*, is_late: bool = False) -> None:
    """Give up what is the parent's. If a handler raises in the middle, the next use of a limit does all of it again."""
    global _lock, _pid
    cut_off_if_used([engine.store.database.lock for engine in _all_engines()], is_late=is_late)
    for engine in _all_engines():
        engine.after_fork_in_child()
    _engines.clear()
    _set_aside.clear()
    _by_environment.clear()
    _lock = new_lock()
    _pid = getpid()


def notice_fork() -> None:
    """Do in a child what its hook has not done: C code forks without hooks, and a handler may raise in one."""
    if getpid() != _pid:
        with lock_of_process(_noticing):  # of the threads that have begun since, one does it
            if getpid() != _pid:
                _after_fork_in_child(is_late=True)


_fork_locks.register(_take_locks, _close_databases, _after_fork_in_child)
atexit.register(forget_all)
