"""A thread carries out the steps of a call: it blocks where they wait."""

from __future__ import annotations

import threading
import time
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
    """What one thread waits on. A bare lock: an interrupted wait for a `threading.Event` may end in a RuntimeError."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # it has been rung already
            return

    def wait(self, until: float | None) -> bool:
        """Wait until it rings; False if that is not until then."""
        if until is None:
            return self._lock.acquire()
        seconds = min(until - time.monotonic(), threading.TIMEOUT_MAX)
        return self._lock.acquire(timeout=max(seconds, 0))


def run(steps: Steps[Result], sender: Sender, wakeups: Wakeups) -> Result:
    """Carry out steps to their end. What interrupts a wait is raised inside the steps."""
    advance: Callable[[Any], Ask | Pause] = steps.send
    argument: Any = None
    try:
        for _ in ENDLESSLY:
            step = advance(argument)
            try:
                argument = _carry_out(step, sender, wakeups)
            except BaseException as interruption:
                advance, argument = steps.throw, interruption
            else:
                advance = steps.send
    except StopIteration as end:
        result: Result = end.value
    finally:
        argument = None  # its traceback refers to this very frame
    return result


def _carry_out(step: Ask | Pause, sender: Sender, wakeups: Wakeups) -> Any:
    if isinstance(step, Ask):
        return _ask(step, sender)
    _pause(step, wakeups)
    return None


def _ask(step: Ask, sender: Sender) -> Any:
    bell = _Bell()
    question = Question(step.question, bell.ring, step.undo)
    try:
        sender.submit(question)
        # A destructor that runs while memory is collected may call from within the sending thread.
        if not bell.wait(0.0 if sender.is_this_thread() else step.until):
            raise NoAnswer
        return question.take_answer()
    except BaseException:
        question.drop()
        raise


def _pause(step: Pause, wakeups: Wakeups) -> None:
    bell = _Bell()
    with wakeups.expected(step, bell.ring):
        bell.wait(step.until)
