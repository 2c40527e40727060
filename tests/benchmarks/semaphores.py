"""localconc and its peers behind one interface: a directory, a name and a limit give blocks to enter."""

import importlib.util
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import BoundedSemaphore
from pathlib import Path
from typing import Any

from tests.benchmarks.crew import SPAWN

Entrance = Callable[[], AbstractContextManager[Any]]
OURS = "localconc"
FOREVER_SECONDS = 3600.0

_shared: dict[int, BoundedSemaphore] = {}


@dataclass(frozen=True)
class Semaphore:
    """One contender: how to open it in a process, and what it is able to promise."""

    name: str
    needs: str
    open: Callable[[Path, str, int], Entrance]
    largest_limit: int | None = None
    survives_a_kill: bool = False
    file_based: bool = True
    longest_poll_seconds: float = 0.0
    define: Callable[[str, int], object] = lambda name, limit: None
    dispose: Callable[[str], object] = lambda name: None

    @property
    def available(self) -> bool:
        """Whether it is installed here."""
        return installed(self.needs)

    def allows(self, limit: int) -> bool:
        """Whether it knows limits of this size."""
        return self.largest_limit is None or limit <= self.largest_limit


def installed(module: str) -> bool:
    """Whether a module can be imported here."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def share(limits: Iterable[int]) -> Mapping[int, BoundedSemaphore]:
    """Make the semaphores that processes can only inherit; give them to a crew as `Crew(n, adopt, …)`."""
    _shared.update({limit: SPAWN.BoundedSemaphore(limit) for limit in limits})
    return dict(_shared)


def adopt(shared: Mapping[int, BoundedSemaphore]) -> None:
    """In a worker: use the semaphores that were inherited."""
    _shared.update(shared)


def _define_localconc(name: str, limit: int) -> None:
    from localconc.limits import create_limit

    create_limit(name, limit)


def _open_localconc(_: Path, name: str, limit: int) -> Entrance:
    from localconc.sync import concurrency

    return lambda: concurrency(name)


def _open_diskcache(directory: Path, name: str, limit: int) -> Entrance:
    import diskcache

    cache = diskcache.Cache(str(directory / "diskcache"), eviction_policy="none")
    semaphore = diskcache.BoundedSemaphore(cache, name, value=limit)
    return lambda: semaphore


def _open_portalocker(directory: Path, name: str, limit: int) -> Entrance:
    import portalocker

    semaphore = portalocker.NamedBoundedSemaphore(limit, name, directory=str(directory), timeout=FOREVER_SECONDS)
    return lambda: semaphore


def _open_filelock(directory: Path, name: str, limit: int) -> Entrance:
    import filelock

    lock = filelock.FileLock(directory / f"{name}.filelock")
    return lambda: lock


def _open_fasteners(directory: Path, name: str, limit: int) -> Entrance:
    import fasteners

    lock = fasteners.InterProcessLock(directory / f"{name}.fasteners")
    return lambda: lock


def _posix_name(name: str) -> str:
    return f"/{name}-{os.getuid()}"


def _define_posix(name: str, limit: int) -> None:
    import posix_ipc

    posix_ipc.Semaphore(_posix_name(name), posix_ipc.O_CREX, mode=0o600, initial_value=limit).close()


def _open_posix(_: Path, name: str, limit: int) -> Entrance:
    import posix_ipc

    semaphore = posix_ipc.Semaphore(_posix_name(name))
    return lambda: semaphore


def _dispose_posix(name: str) -> None:
    import posix_ipc

    posix_ipc.unlink_semaphore(_posix_name(name))


def _open_multiprocessing(_: Path, name: str, limit: int) -> Entrance:
    semaphore = _shared[limit]
    return lambda: semaphore


ALL = (
    Semaphore(OURS, "localconc.sync", _open_localconc, survives_a_kill=True, define=_define_localconc),
    Semaphore("portalocker", "portalocker", _open_portalocker, survives_a_kill=True, longest_poll_seconds=0.25),
    Semaphore(
        "filelock",
        "filelock",
        _open_filelock,
        largest_limit=1,
        survives_a_kill=True,
        longest_poll_seconds=0.05,
    ),
    Semaphore(
        "fasteners",
        "fasteners",
        _open_fasteners,
        largest_limit=1,
        survives_a_kill=True,
        longest_poll_seconds=0.1,
    ),
    Semaphore("diskcache", "diskcache", _open_diskcache, longest_poll_seconds=0.001),
    Semaphore("posix_ipc", "posix_ipc", _open_posix, file_based=False, define=_define_posix, dispose=_dispose_posix),
    Semaphore("multiprocessing", "multiprocessing", _open_multiprocessing, file_based=False),
)
BY_NAME = {semaphore.name: semaphore for semaphore in ALL}
PEERS = [semaphore.name for semaphore in ALL if semaphore.name != OURS]


def contenders(limit: int) -> list[Semaphore]:
    """Those that are installed and know a limit of this size."""
    return [semaphore for semaphore in ALL if semaphore.available and semaphore.allows(limit)]


def posix() -> Semaphore:
    """POSIX semaphores by the package for them, or those that `multiprocessing` makes, which are the same."""
    by_package = BY_NAME["posix_ipc"]
    return by_package if by_package.available else BY_NAME["multiprocessing"]


def peers_of(figures: Mapping[str, float]) -> dict[str, float | None]:
    """The peers' figures, with «n/a» for a peer that has none."""
    return {name: figures.get(name) for name in PEERS}


@contextmanager
def defined(semaphore: Semaphore, limit: int) -> Iterator[str]:
    """A semaphore that nobody used before: its name, for the length of a block."""
    name = f"benchmark-{uuid.uuid4().hex[:12]}"
    semaphore.define(name, limit)
    try:
        yield name
    finally:
        semaphore.dispose(name)


def entrance(name: str, directory: Path, key: str, limit: int) -> Entrance:
    """Open the contender of that name in this process."""
    return BY_NAME[name].open(directory, key, limit)
