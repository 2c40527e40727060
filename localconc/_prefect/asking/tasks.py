"""A task carries out the steps of a call: it awaits where they wait."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from localconc._locks import ENDLESSLY
from localconc._prefect.asking.sender import Question
from localconc._prefect.asking.steps import Ask, Pause, Result, Steps
from localconc._prefect.server.errors import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._prefect.asking.sender import Sender
    from localconc._prefect.asking.wakeups import Wakeups


class _Bell:
    """What one task waits on; any thread may ring it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Let the wait end.

        Raises:
            RuntimeError: the task's event loop is closed.
        """
        self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, until: float | None) -> bool:
        """Wait until it rings; False if that is not until then."""
        if until is None:
            await self._rung.wait()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(until - time.monotonic(), 0)):
                    await self._rung.wait()
        return self._rung.is_set()


async def run(steps: Steps[Result], sender: Sender, wakeups: Wakeups) -> Result:
    """Carry out steps to their end. What interrupts a wait, as a cancellation does, is raised inside the steps."""
    advance: Callable[[Any], Ask | Pause] = steps.send
    argument: Any = None
    try:
        for _ in ENDLESSLY:
            step = advance(argument)
            try:
                argument = await _carry_out(step, sender, wakeups)
            except BaseException as interruption:
                advance, argument = steps.throw, interruption
            else:
                advance = steps.send
    except StopIteration as end:
        result: Result = end.value
    finally:
        argument = None  # its traceback refers to this very frame
    return result


async def _carry_out(step: Ask | Pause, sender: Sender, wakeups: Wakeups) -> Any:
    if isinstance(step, Ask):
        return await _ask(step, sender)
    await _pause(step, wakeups)
    return None


async def _ask(step: Ask, sender: Sender) -> Any:
    bell = _Bell()
    question = Question(step.question, bell.ring, step.undo)
    try:
        sender.submit(question)
        if not await bell.wait(step.until):
            raise NoAnswer
        return question.take_answer()
    except BaseException:
        question.drop()
        raise


async def _pause(step: Pause, wakeups: Wakeups) -> None:
    bell = _Bell()
    with wakeups.expected(step, bell.ring):
        await bell.wait(step.until)
