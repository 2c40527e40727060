"""Eight processes share four pretend devices; each job learns from localconc which device is its own.

python examples/gpu_pool.py
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from localconc import ensure_limit
from localconc.sync import concurrency

PROCESSES = 8
DEVICES = 4
JOBS = 32
JOB_SECONDS = 0.05


class Use(NamedTuple):
    """One job's use of a device, on the clock that all processes share."""

    device: int
    visible_devices: str
    pid: int
    begun: float
    ended: float


def train(job: int) -> Use:
    """Run one job on a device of its own."""
    with concurrency("gpu", label=f"job {job}") as occupancy:
        device = occupancy.numbers[0]  # 0, 1, 2 or 3: no other holder has the same number
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device)  # what a program with real GPUs would do next
        begun = time.monotonic()
        write_to(Path(os.environ["DEVICES"], str(device)), job)
        return Use(device, os.environ["CUDA_VISIBLE_DEVICES"], os.getpid(), begun, time.monotonic())


def write_to(device: Path, job: int) -> None:
    """Use a pretend device: a directory that fails if two processes write to it at a time.

    Raises:
        FileExistsError: another job is using the device.
    """
    with (device / "in use").open("x") as file:
        file.write(str(job))
        time.sleep(JOB_SECONDS)
    (device / "in use").unlink()


def most_at_once(uses: list[Use]) -> int:
    """Count how many jobs ran at the same time, at most."""
    running = most = 0
    for _, step in sorted([(use.begun, 1) for use in uses] + [(use.ended, -1) for use in uses]):
        running += step
        most = max(most, running)
    return most


def times_shared(uses: list[Use]) -> int:
    """Count how often a device was used before the job that had it was done."""
    return sum(
        after.begun < before.ended
        for device in range(DEVICES)
        for before, after in pairwise(sorted((use for use in uses if use.device == device), key=lambda use: use.begun))
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="localconc-") as directory:
        os.environ.setdefault("LOCALCONC_HOME", str(Path(directory, "home")))
        os.environ["DEVICES"] = directory
        for device in range(DEVICES):
            Path(directory, str(device)).mkdir()
        ensure_limit("gpu", DEVICES)
        print(f"{PROCESSES} processes run {JOBS} jobs on {DEVICES} devices\n")
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            uses = pool.map(train, range(JOBS), chunksize=1)

    for device in range(DEVICES):
        mine = [use for use in uses if use.device == device]
        pids = len({use.pid for use in mine})
        print(f"  CUDA_VISIBLE_DEVICES={device}: {len(mine):2d} jobs of {pids} processes, one after another")
    print(f"\n  jobs at the same time, at most: {most_at_once(uses)} of {DEVICES} allowed")
    print(f"  times that a device was shared: {times_shared(uses)}")


if __name__ == "__main__":
    main()
