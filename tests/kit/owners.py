"""Other processes that own a file in a home, without an engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from localconc._engine.core.records import OwnerRow
from localconc._engine.liveness.owner import Owner

#: Makes an owner, says its row, and does what it is told: to become another program, to close everything, or to end.
PROCESS = """
import os, sys
from pathlib import Path
from localconc._engine.liveness.owner import Owner
owner = Owner(Path(sys.argv[1]))
print(owner.key, owner.pid, owner.pid_namespace, owner.started, flush=True)
order = sys.stdin.readline().strip()
if order == "exec":
    os.execvp("sh", ["sh", "-c", "echo became; exec cat"])
if order == "close":
    os.closerange(3, 100)
    print("closed", flush=True)
    sys.stdin.readline()
"""


class Process:
    """Another process, which owns a file in the home."""

    def __init__(self, directory: Path) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        key, pid, namespace, started = self.hear().rstrip("\n").split(" ")
        self.row = OwnerRow(1, key, int(pid), namespace, started, "other")

    def hear(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline()

    def tell(self, order: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(order + "\n")
        self.popen.stdin.flush()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


@contextmanager
def another(directory: Path) -> Iterator[Process]:
    process = Process(directory)
    try:
        yield process
    finally:
        process.kill()
        for pipe in (process.popen.stdin, process.popen.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()


def row_of(owner: Owner, **changes: Any) -> OwnerRow:
    row = OwnerRow(1, owner.key, owner.pid, owner.pid_namespace, owner.started, owner.command)
    return row._replace(**changes)
