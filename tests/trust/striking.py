"""Strike a worker at each point of a scenario in turn, and look at what it left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from localconc import create_limit
from localconc._engine import registry
from tests.kit import version1

from .inspection import assert_sound, held, in_thread, rows, wait_until, waiting
from .peers import Peer
from .points import DIE

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE = Path(__file__).parent

#: Scenarios for which another process holds the slot; those with which another one waits for it.
HELD_BY_ANOTHER = frozenset({"while_waiting", "while_timing_out"})
AWAITED = frozenset({"while_handing_off"})


def memory_directory() -> str | None:
    """A place for homes whose writes reach no disk, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def fault_library(directory: Path) -> Path:
    """Build the library that counts and breaks system calls."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("system calls are struck by a small library in C: it needs Linux and a C compiler")
    library = directory / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _HERE / "faults.c", "-ldl"], check=True)
    return library


class Strikes:
    """Workers at one level (`statements` or `calls`), one after another, each on a home of its own.

    Args:
        level: what is counted.
        library: of faults, for system calls.
    """

    def __init__(self, level: str, library: Path | None = None) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="localconc-strikes-", dir=memory_directory()))
        self._template = self._directory / "template"
        self._make_template()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        if library is not None:
            environment["LD_PRELOAD"] = str(library)
        self._process = subprocess.Popen(
            [sys.executable, _HERE / "worker.py", level],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._number = 0

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _make_template(self) -> None:
        before = os.environ.get("LOCALCONC_HOME", "")
        os.environ["LOCALCONC_HOME"] = str(self._template)
        create_limit("gate", 1)
        create_limit("other", 5)
        create_limit("rate", 1, slot_decay_per_second=1000.0)
        registry.forget(self._template)
        os.environ["LOCALCONC_HOME"] = before

    def _order(self, home: Path, scenario: str, at: int, deed: int, error: int) -> None:
        assert self._process.stdin is not None
        order = {"home": str(home), "scenario": scenario, "at": at, "deed": deed, "error": error}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def strike(self, scenario: str, at: int, deed: int, error: int = 0) -> dict[str, Any]:
        """Play a scenario with a strike at a point (0: none); returns how the worker ended, after all is checked."""
        self._number += 1
        home = self._directory / str(self._number) / "home"
        home.parent.mkdir()
        if scenario == "while_migrating":
            version1.make_home(home)
        elif scenario != "at_first_opening":
            shutil.copytree(self._template, home)
        if scenario == "while_rebuilding":
            (home / "localconc.db").write_bytes(b"garbage" * 1000)
        if scenario == "while_reaping_the_dead":
            self._order(home, "hold_and_die", 0, 0, 0)
            self._answer()
            assert self._answer()["status"] == 9
        peer = Peer(home)
        others = _Others(peer, scenario)
        self._order(home, scenario, at, deed, error)
        others.act(self._answer()["pid"])
        answer = self._answer()
        others.finish()
        where = f"{scenario}, point {at}, deed {deed}, error {error}"
        _assert_usable(home, peer, where)
        if scenario == "while_migrating" and deed == DIE:  # a failure may tell that the store is damaged
            _assert_taken_over(home, where)
        peer.close()
        shutil.rmtree(home.parent)
        return answer


class _Others:
    """What other processes do meanwhile."""

    def __init__(self, peer: Peer, scenario: str) -> None:
        self._peer = peer
        self._scenario = scenario
        self._thread: threading.Thread | None = None
        self._failures: list[BaseException] = []
        self._handle = peer.acquire("gate") if scenario in HELD_BY_ANOTHER else None

    def act(self, pid: int) -> None:
        if self._scenario in AWAITED:
            wait_until(lambda: held(self._peer.engine.directory), "the worker holds the slot")
            self._thread = threading.Thread(target=self._take)
            self._thread.start()
        if self._scenario == "while_waiting":
            home = self._peer.engine.directory
            wait_until(lambda: waiting(home) or _has_ended(pid), "the worker waits")
            self._release()

    def finish(self) -> None:
        self._release()
        if self._thread is not None:
            self._thread.join(10)
            assert not self._thread.is_alive(), "who waited was not served"
        if self._failures:
            raise self._failures[0]

    def _release(self) -> None:
        if self._handle is not None:
            self._peer.release(self._handle)
            self._handle = None

    def _take(self) -> None:
        try:
            self._peer.release(self._peer.acquire("gate", timeout_seconds=5))
        except BaseException as error:
            self._failures.append(error)


def _has_ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _assert_taken_over(home: Path, where: str) -> None:
    """The store of version 1 is one of this version, with all that it had; it was not set aside as damaged."""
    shown = rows(home, 'SELECT name, "limit", active, slot_decay_per_second FROM limits')
    definitions = {name: (limit, bool(active), decay) for name, limit, active, decay in shown}
    kept = {name: definitions.get(name) for name in version1.DEFINITIONS}
    assert kept == version1.DEFINITIONS, where
    assert version1.version_of(home) == 2, where
    assert rows(home, "SELECT count(*) FROM history WHERE seq <= ?", version1.PAST_ACQUISITIONS) == [
        (version1.PAST_ACQUISITIONS,)
    ], where
    assert not list(home.glob("*.damaged-*")), where


def _assert_usable(home: Path, peer: Peer, where: str) -> None:
    """Nobody holds anything; all slots can be had, and no more than those; the file is sound."""
    try:
        first = peer.acquire("gate", limit=1, timeout_seconds=3)
        others = [peer.acquire("other", limit=5, timeout_seconds=3) for _ in range(5)]
        second = Peer(home)
        for name in ("gate", "other"):
            with pytest.raises(TimeoutError):
                second.acquire(name, timeout_seconds=0)
        for handle in (first, *others):
            peer.release(handle)
        second.close()
        assert_sound(home)
        assert held(home) == 0
        assert waiting(home) == 0
    except BaseException as error:
        error.add_note(f"after a strike at {where}")
        raise


__all__ = ["Iterator", "Strikes", "fault_library", "in_thread"]
