"""localconc and plain Prefect clients share a limit: the promise of the setting, proved by the processes' own logs."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from localconc import ensure_limit, read_limit
from tests.kit.processes import peak_overlap
from tests.prefect import sharing
from tests.prefect.client import ROOT, environment
from tests.prefect.server import PrefectServer

PROCESSES_EACH = 4
JOBS = 20
LIMIT = 2

Jobs = list[tuple[float, float]]


@pytest.mark.timeout(300)
def test_four_processes_of_each_kind_share_a_limit(on_server: PrefectServer, name: str, tmp_path: Path) -> None:
    ensure_limit(name, LIMIT)
    ours, theirs = _do_jobs(on_server.url, name, tmp_path)
    assert [len(ours), len(theirs)] == [PROCESSES_EACH * JOBS] * 2
    assert peak_overlap(ours + theirs) == LIMIT
    assert any(_overlap(one, other) for one in ours for other in theirs)
    assert read_limit(name).active_slots == 0


def _do_jobs(url: str, name: str, directory: Path) -> tuple[Jobs, Jobs]:
    logs = {(kind, n): directory / f"{kind}-{n}" for kind in ("localconc", "prefect") for n in range(PROCESSES_EACH)}
    with ExitStack() as processes:
        started = [
            processes.enter_context(_Process(url, directory, kind, name, log)) for (kind, _), log in logs.items()
        ]
        for process in started:
            process.wait_until_ready()
        for process in started:
            process.begin()
        for process in started:
            process.finish()
    ours = [job for (kind, _), log in logs.items() if kind == "localconc" for job in _read(log)]
    theirs = [job for (kind, _), log in logs.items() if kind == "prefect" for job in _read(log)]
    return ours, theirs


class _Process:
    def __init__(self, url: str, home: Path, kind: str, name: str, log: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, sharing.__file__, kind, name, str(JOBS), str(log)],
            env=environment(url, home / "prefect"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finish(self) -> None:
        assert self._process.wait(240) == 0


def _read(log: Path) -> Jobs:
    return [(float(begin), float(end)) for begin, end in (line.split() for line in log.read_text().splitlines())]


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


@pytest.mark.timeout(300)
def test_the_example_shares_a_limit_between_two_machines(server: PrefectServer, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "two_machines.py")],
        env=environment(server.url, tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert "Each with a home of its own: 4 jobs at once." in ended.stdout
    assert "Both with LOCALCONC_HOME=prefect: 2 jobs at once." in ended.stdout
