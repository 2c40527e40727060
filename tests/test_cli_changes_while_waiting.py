"""The command line: limits that change while a command waits for them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from localconc import create_limit, delete_limit, read_limit, read_waiters, update_limit
from localconc.sync import concurrency
from tests.kit.command_line import COMMAND, PATIENCE_SECONDS, localconc, until

CHANGES: dict[str, Callable[[], object]] = {
    "deleted": lambda: delete_limit("gpu"),
    "renamed": lambda: update_limit("gpu", name="cards"),
}


@contextmanager
def waiting_for_gpu(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and run the block once it waits for the limit `gpu`."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: read_waiters("gpu"))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("arguments", [("run", "gpu", "--", "echo", "ran"), ("rate", "gpu")])
def test_a_waiting_command_whose_limit_is_gone_is_refused_as_a_new_one_is(
    arguments: tuple[str, ...], change: str
) -> None:
    create_limit("gpu", 1, active_slots=1, slot_decay_per_second=1e-6)
    with waiting_for_gpu(*arguments) as process:
        CHANGES[change]()
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    new = localconc(*arguments)
    assert (process.returncode, out, err) == (new.returncode, new.stdout, new.stderr)
    assert (process.returncode, out) == (1, "")


def test_a_waiting_command_that_loses_one_of_its_limits_gives_the_others_back() -> None:
    create_limit("db", 1)
    create_limit("gpu", 0)
    with waiting_for_gpu("run", "db,gpu", "--", "echo", "ran") as process:
        delete_limit("gpu")
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (1, "")
    assert "There is no limit 'gpu'" in err
    assert read_limit("db").active_slots == 0


def test_a_waiting_command_goes_ahead_if_its_limit_is_disabled() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"), waiting_for_gpu("run", "gpu", "--", "echo", "ran") as process:
        update_limit("gpu", active=False)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (0, "ran\n"), err


def test_a_waiting_command_that_may_do_without_a_limit_goes_ahead_if_it_is_deleted() -> None:
    create_limit("gpu", 0)
    with waiting_for_gpu("run", "gpu", "--allow-missing", "--", "echo", "ran") as process:
        delete_limit("gpu")
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (0, "ran\n")
    assert "warning: There is no limit 'gpu'" in err
