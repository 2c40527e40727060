"""Circles of real processes: the request that closes one is refused, whether threads or tasks wait."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest

from localconc import ensure_limit, read_waiters
from localconc.sync import concurrency
from tests.kit.processes import PATIENCE_SECONDS, wait_until

#: Holds the slots of one limit, and asks for those of another one once it is told to; says what comes of it.
_OF_A_THREAD = """
import sys
from localconc.sync import DeadlockError, concurrency

first, second = sys.argv[1:]
with concurrency(first):
    print("holds", flush=True)
    sys.stdin.readline()
    try:
        with concurrency(second):
            print("in", flush=True)
    except DeadlockError as error:
        print("refused:", error, flush=True)
    sys.stdin.readline()
"""

_OF_A_TASK = """
import asyncio, sys
from localconc.asyncio import DeadlockError, concurrency

async def main():
    first, second = sys.argv[1:]
    async with concurrency(first):
        print("holds", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            async with concurrency(second):
                print("in", flush=True)
        except DeadlockError as error:
            print("refused:", error, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""

_OF_A_BLOCK_IN_A_TASK = _OF_A_TASK.replace(
    "async with concurrency(first)", "with localconc.sync.concurrency(first)"
).replace("import asyncio, sys", "import asyncio, sys, localconc.sync")

PROGRAMS = {"thread": _OF_A_THREAD, "task": _OF_A_TASK, "thread's block in a task": _OF_A_BLOCK_IN_A_TASK}


class Nested:
    """A process that holds the slots of one limit, and asks for those of another one inside."""

    def __init__(self, kind: str, first: str, second: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAMS[kind], first, second],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.second = second

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def go_on(self) -> None:
        """Tell it to ask, or to leave."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ask_and_wait(self) -> None:
        """Tell it to ask, and wait until it is in the queue."""
        self.go_on()
        wait_until(lambda: self.process.pid in {waiter.pid for waiter in read_waiters(self.second)})


@contextmanager
def a_circle(kinds: tuple[str, ...]) -> Iterator[list[Nested]]:
    """Processes that each hold a limit, and will ask for the next one's."""
    names = [f"limit {number}" for number in range(len(kinds))]
    for name in names:
        ensure_limit(name, 1)
    with ExitStack() as stack:
        circle = []
        for kind, (first, second) in zip(kinds, pairwise([*names, names[0]]), strict=True):
            nested = Nested(kind, first, second)
            stack.enter_context(nested.process)
            stack.callback(nested.process.kill)
            circle.append(nested)
        for nested in circle:
            assert nested.hear() == "holds\n"
        yield circle


@pytest.mark.parametrize(
    "kinds",
    [
        ("thread", "thread"),
        ("task", "task"),
        ("thread", "task"),
        ("thread's block in a task", "thread's block in a task"),
        ("thread", "task", "thread's block in a task"),
        pytest.param(("thread", "thread", "thread"), marks=pytest.mark.sweep),
        pytest.param(("task", "task", "task"), marks=pytest.mark.sweep),
    ],
    ids=", ".join,
)
def test_the_process_that_closes_a_circle_is_refused_and_the_others_go_on(kinds: tuple[str, ...]) -> None:
    with a_circle(kinds) as circle:
        *waiting, closing = circle
        for nested in waiting:
            nested.ask_and_wait()
        closing.go_on()
        refused = closing.hear()
        assert refused.startswith("refused: ")
        assert all(f"pid {nested.process.pid}," in refused for nested in waiting)
        assert all(refused.count(repr(nested.second)) >= 2 for nested in circle), "each is held, and waited for"

        closing.go_on()
        for nested in reversed(waiting):
            assert nested.hear() == "in\n"
            nested.go_on()
        for nested in circle:
            assert nested.process.wait(PATIENCE_SECONDS) == 0


def test_a_circle_that_a_kill_has_opened_refuses_nobody() -> None:
    """The dead process is found by the request that would have closed the circle."""
    with a_circle(("thread", "thread")) as (first, closing):
        first.ask_and_wait()
        first.process.kill()
        first.process.wait(PATIENCE_SECONDS)
        closing.go_on()
        assert closing.hear() == "in\n"


_OF_BOTH = """
from localconc.sync import concurrency
with concurrency(["wanted", "held"]):
    pass
"""


def test_a_killed_waiter_that_held_nothing_refuses_nobody() -> None:
    """It stood in front of the request, and waited for what the caller of the request holds."""
    ensure_limit("wanted", 1)
    ensure_limit("held", 1)
    with concurrency("held"):
        waiter = subprocess.Popen([sys.executable, "-c", _OF_BOTH])
        try:
            wait_until(lambda: len(read_waiters("held")) == 1)
        finally:
            waiter.kill()
            waiter.wait(PATIENCE_SECONDS)
        with concurrency("wanted"):
            pass
