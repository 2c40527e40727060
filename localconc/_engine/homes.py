"""The keeper of the limits that the environment names, made when first needed; and what a fork does to engines."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from localconc._engine import switch
from localconc._engine.home import SERVER, home
from localconc._engine.machine import Machine
from localconc._engine.switch import DISABLED
from localconc.errors import StoreError

if TYPE_CHECKING:
    from localconc._engine.clock import Clock
    from localconc._keeper import Keeper

#: Pid of the process whose time a test moves, for the processes that it starts: they can't share that time.
VIRTUAL_CLOCK: Final = "LOCALCONC_VIRTUAL_CLOCK"

#: Environment variables that `home()` depends on; the first one decides alone where it is set.
_VARIABLES: Final = ("LOCALCONC_HOME", "HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "USERPROFILE")


def _raw_environment() -> Any:
    """The mapping inside `os.environ`: looking there saves two microseconds a call, a tenth of an acquisition."""
    raw = getattr(os.environ, "_data", None)
    encode = getattr(os.environ, "encodekey", None)
    if isinstance(raw, dict) and encode is not None:
        return raw.get, [encode(name) for name in (*_VARIABLES, DISABLED)]
    return os.environ.get, [*_VARIABLES, DISABLED]


_variable, (_home_key, *_other_home_keys, _disabled_key) = _raw_environment()

_engines: dict[Path, Machine] = {}
_by_environment: dict[Any, Any] = {}
_lock = threading.RLock()
_clock: Clock | None = None
_is_alone = False


def is_disabled() -> bool:
    """Whether limits are switched off; most often the variable is not set at all, which is seen at once."""
    return _variable(_disabled_key) is not None and switch.is_disabled()


def current() -> Keeper:
    """What keeps the limits that the environment names at this moment: the engine of a home, or a server."""
    key = _variable(_home_key) or tuple([_variable(name) for name in _other_home_keys])
    return _by_environment.get(key) or _find(key)


def machine(what: str) -> Machine:
    """The engine of the home that the environment names at this moment.

    Args:
        what: what needs it, as a sentence says it.

    Raises:
        NotSupportedError: a server keeps the limits.
    """
    keeper = current()
    if isinstance(keeper, Machine):
        return keeper
    from localconc._prefect import refuse

    return refuse(what)


def _find(key: Any) -> Keeper:
    configured = os.environ.get("LOCALCONC_HOME", "")
    if configured.startswith(SERVER):
        return _server(configured)
    return cast("Keeper", _engine(key))


def _server(configured: str) -> Keeper:
    if configured != SERVER:
        raise StoreError(
            f"LOCALCONC_HOME={SERVER} takes nothing behind the colon, but is {configured!r}: the address of the server "
            "comes from Prefect's settings, such as PREFECT_API_URL."
        )
    from localconc._prefect import open_keeper

    return open_keeper()


def _engine(key: Any) -> Machine:
    directory = home()
    with _lock:
        engine = _engines.get(directory)
        if engine is None:
            _refuse_foreign_time()
            engine = _engines[directory] = Machine(directory, _clock)
            engine.is_alone = _is_alone
        configured = os.environ.get("LOCALCONC_HOME")
        if not configured or os.path.isabs(configured):  # a relative one depends on the working directory
            _by_environment[key] = engine
        return engine


def _refuse_foreign_time() -> None:
    pid = os.environ.get(VIRTUAL_CLOCK)
    if pid and pid != str(os.getpid()):
        raise RuntimeError(
            f"This process (pid {os.getpid()}) was started by pid {pid} inside virtual_clock(), whose time no other "
            "process can share: test several processes without it."
        )


def use_clock(clock: Clock | None, *, is_alone: bool = False) -> None:
    """Let the engines of this process live by another clock; None for the machine's own.

    Args:
        is_alone: whether no other process takes part, so that waiters need not look for lost signals and deaths.
    """
    global _clock, _is_alone
    with _lock:
        _clock, _is_alone = clock, is_alone
        forget_all()


def forget(directory: Path) -> None:
    """Close the engine of a home and forget it."""
    with _lock:
        engine = _engines.pop(directory, None)
        _by_environment.clear()
    if engine is not None:
        engine.close()


def forget_all() -> None:
    """Close all engines and forget them; the next use makes them anew."""
    with _lock:
        for directory in list(_engines):
            forget(directory)


# ---- forks -----------------------------------------------------------------------------------------------------------

_forking: list[Machine] = []


def _before_fork() -> None:
    _lock.acquire()
    _forking[:] = _engines.values()
    for engine in _forking:
        engine.before_fork()


def _after_fork_in_parent() -> None:
    for engine in _forking:
        engine.after_fork_in_parent()
    _forking.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for engine in _forking:
        engine.after_fork_in_child()
    _forking.clear()
    _engines.clear()
    _by_environment.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(forget_all)
