"""Simulated processes in schedules from a seed; set LOCALCONC_TEST_SEED to replay the one that a failure prints."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from .simulation import KINDS, Simulation, seed_from_environment
from .striking import memory_directory

STEPS = 100


def play(seed: int, played: Counter[str] | None = None) -> int:
    """Play one schedule; return its steps."""
    directory = Path(tempfile.mkdtemp(prefix="localconc-simulation-", dir=memory_directory()))
    try:
        simulation = Simulation(directory / "home", seed)
        simulation.run(STEPS)
        if played is not None:
            played.update(simulation.played)
        return simulation.steps
    except BaseException as error:
        error.add_note(f"replay with LOCALCONC_TEST_SEED={seed}")
        raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def play_for(seconds: float, most: int, played: Counter[str] | None = None) -> int:
    """Play schedules one after another; return how many."""
    seed = seed_from_environment()
    if seed is not None:
        play(seed)
        return most
    first = random.randrange(2**31)
    deadline = time.monotonic() + seconds
    count = 0
    while count < most and time.monotonic() < deadline:
        play(first + count, played)
        count += 1
    return count


def play_on_all_processors(seconds: float, most: int) -> int:
    """Do the same on each processor of the machine, with other seeds."""
    processors = os.cpu_count() or 1
    with ProcessPoolExecutor(processors, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(play_for, [seconds] * processors, [most // processors] * processors))


def test_the_same_seed_plays_the_same_schedule() -> None:
    assert play(1) == play(1) == STEPS


def test_schedules_of_simulated_processes_keep_the_invariants() -> None:
    assert play_for(8.0, 150) > 3


@pytest.mark.sweep
def test_schedules_play_everything_that_can_happen() -> None:
    played: Counter[str] = Counter()
    for seed in range(40):
        play(seed, played)
    assert {kind for kind, count in played.items() if count} == KINDS


@pytest.mark.sweep
@pytest.mark.timeout(300)
def test_many_schedules_of_simulated_processes_keep_the_invariants(capsys: pytest.CaptureFixture[str]) -> None:
    count = play_on_all_processors(120.0, 30_000)
    with capsys.disabled():
        print(f"\n{count} schedules of {STEPS} steps")
    assert count > 50
