"""One process that does jobs under a shared limit and logs them: `sharing.py localconc|prefect NAME JOBS LOG`."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

JOB_SECONDS = 0.02


def _entrance(kind: str, name: str) -> AbstractContextManager[object]:
    if kind == "prefect":
        from prefect.concurrency.sync import concurrency as theirs

        return theirs(name, strict=True)
    from localconc.sync import concurrency as ours

    return ours(name, strict=True)


def main(kind: str, name: str, jobs: str, log: str) -> None:
    """Do the jobs; a line of the log has the moments between which one was inside for certain."""
    _entrance(kind, name)  # what is imported with it takes a second
    print("ready", flush=True)
    sys.stdin.readline()
    with Path(log).open("w") as file:
        for _ in range(int(jobs)):
            with _entrance(kind, name):
                begin = time.monotonic()
                time.sleep(JOB_SECONDS)
                end = time.monotonic()
            file.write(f"{begin} {end}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
