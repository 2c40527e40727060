"""Eight processes compress the standard library's sources, three at a time, and show who held a slot when.

python examples/quickstart.py
"""

from __future__ import annotations

import lzma
import multiprocessing
import os
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from localconc import ensure_limit
from localconc.sync import concurrency

PROCESSES = 8
LIMIT = 3
FILES = 48
COLUMNS = 60


class Hold(NamedTuple):
    """The time in which one file was compressed, on the clock that all processes share."""

    pid: int
    asked: float
    begun: float
    ended: float
    size: int
    compressed: int


def compress(path: Path) -> Hold:
    """Compress one file, as soon as a slot is free."""
    asked = time.monotonic()
    with concurrency("compressor", label=multiprocessing.current_process().name):
        begun = time.monotonic()
        text = path.read_bytes()
        compressed = len(lzma.compress(text, preset=6))
        ended = time.monotonic()
    return Hold(os.getpid(), asked, begun, ended, len(text), compressed)


def largest_sources(count: int) -> list[Path]:
    """Return the largest modules of the standard library: real files, on every machine that runs Python."""
    library = Path(sysconfig.get_path("stdlib"))
    return sorted(library.glob("*.py"), key=lambda path: path.stat().st_size)[-count:]


def most_at_once(holds: list[Hold]) -> int:
    """Count how many ran at the same time, at most."""
    running = most = 0
    for _, step in sorted([(hold.begun, 1) for hold in holds] + [(hold.ended, -1) for hold in holds]):
        running += step
        most = max(most, running)
    return most


def print_timeline(holds: list[Hold]) -> None:
    """Print a line for each process: `█` while it held a slot, `·` while it waited for one."""
    first = min(hold.asked for hold in holds)
    scale = COLUMNS / (max(hold.ended for hold in holds) - first)

    def column(moment: float) -> int:
        return min(COLUMNS - 1, int((moment - first) * scale))

    for number, pid in enumerate(sorted({hold.pid for hold in holds}), 1):
        line = [" "] * COLUMNS
        mine = [hold for hold in holds if hold.pid == pid]
        for hold in mine:
            line[column(hold.asked) : column(hold.begun) + 1] = "·" * (column(hold.begun) + 1 - column(hold.asked))
        for hold in mine:
            line[column(hold.begun) : column(hold.ended) + 1] = "█" * (column(hold.ended) + 1 - column(hold.begun))
        waited = sum(hold.begun - hold.asked for hold in mine)
        print(f"  process {number} |{''.join(line)}| waited {waited:.2f} s")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="localconc-") as home:
        os.environ.setdefault("LOCALCONC_HOME", home)  # a home of its own, so that trying it leaves nothing behind
        ensure_limit("compressor", LIMIT)
        files = largest_sources(FILES)
        print(f"{PROCESSES} processes compress {len(files)} files under concurrency('compressor'), limit {LIMIT}\n")
        begun = time.monotonic()
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            holds = pool.map(compress, files, chunksize=1)
        seconds = time.monotonic() - begun

    print("who held a slot (█) and who waited (·), from left to right:\n")
    print_timeline(holds)
    waits = sorted(hold.begun - hold.asked for hold in holds)
    before, after = sum(hold.size for hold in holds), sum(hold.compressed for hold in holds)
    print(f"\n  at the same time, at most : {most_at_once(holds)} of {LIMIT} allowed")
    median, most = waits[len(waits) // 2] * 1e3, waits[-1] * 1e3
    print(f"  each file waited          : {median:.0f} ms (median), {most:.0f} ms at most")
    print(f"  compressed                : {before / 1e6:.1f} MB to {after / 1e6:.1f} MB in {seconds:.1f} s")


if __name__ == "__main__":
    main()
