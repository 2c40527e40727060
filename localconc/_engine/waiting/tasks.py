"""How a task takes the steps of a call: it awaits at each pause."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from localconc._engine.acquiring.acquisitions import NOT_RELEASED
from localconc._engine.acquiring.contexts import of_task
from localconc._engine.core.errors import Busy
from localconc._engine.waiting import steps
from localconc._engine.waiting.dispatcher import LoopDispatcher, dispatcher_of
from localconc._engine.waiting.pauses import Backoff, Park, Steps
from localconc._engine.waiting.throttle import MAX_SECONDS_AN_ITERATION, loop_budget
from localconc._locks import ENDLESSLY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from localconc._engine.core.calls import Call
    from localconc._engine.engine import Engine
    from localconc._engine.holding.holdings import Handle
    from localconc._engine.liveness.owner import Owner
    from localconc._engine.waiting.mailboxes.mailbox import Mailbox
    from localconc._engine.waiting.throttle import TaskEvent

Result = TypeVar("Result")


class TaskDriver:
    """One call's use of the dispatcher of its loop, which begins when the call first pauses."""

    __slots__ = ("_dispatcher", "_event", "_serial", "engine")

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._dispatcher: LoopDispatcher | None = None
        self._event: TaskEvent | None = None
        self._serial = 0

    @property
    def dispatcher(self) -> LoopDispatcher:
        if self._dispatcher is None:
            self._dispatcher = dispatcher_of(self.engine, asyncio.get_running_loop())
            self._dispatcher.enter()
        return self._dispatcher

    def take(self, owner: Owner) -> Mailbox:
        """Return the mailbox of all tasks of the loop."""
        return self.dispatcher.mailbox(owner)

    def put(self, mailbox: Mailbox) -> None:
        """Leave the mailbox to the dispatcher, which keeps it for as long as it has users."""

    def expect(self, serial: int) -> TaskEvent:
        """Expect wakeups for a serial from now on; one that comes between two pauses ends the next one at once."""
        if self._event is None:
            self._serial, self._event = serial, self.dispatcher.expect(serial)
        return self._event

    def end(self) -> None:
        dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            if self._event is not None:
                dispatcher.forget(self._serial, self._event)
            dispatcher.exit()


async def run_steps(steps: Steps[Result], driver: TaskDriver) -> Result:
    """Take the steps to their end. An exception that interrupts a pause is raised inside the steps, which clean up.

    This does not close the steps: if a program drops the task, the interpreter closes it, and the steps with it.
    """
    go: Callable[[Any], Backoff | Park] = steps.send
    argument: Any = None
    try:
        for _ in ENDLESSLY:
            begun = perf_counter()
            try:
                pause = go(argument)
            finally:
                loop_budget.used_seconds += perf_counter() - begun
            try:
                if isinstance(pause, Backoff):
                    argument = None
                    await driver.dispatcher.back_off(pause.seconds, pause.until)
                else:  # ten thousand tasks may be suspended here, so there are no more coroutines than needed
                    event = driver.expect(pause.serial)
                    await driver.engine.clock.pause_task(event, pause.until)
                    argument = event.clear()
            except BaseException as interruption:
                go, argument = steps.throw, interruption
            else:
                go = steps.send
    except StopIteration as end:
        result: Result = end.value
    finally:
        argument = None  # its traceback refers to this very frame
        driver.end()
    return result


async def acquire(engine: Engine, call: Call, task: str, context: int) -> Handle:
    """Acquire what a call asks for; `task` names the caller, `context` identifies it."""
    begun = None
    if loop_budget.used_seconds >= MAX_SECONDS_AN_ITERATION:
        begun = engine.clock.now()
        await _wait_for_iteration(engine, None if call.timeout_seconds is None else begun + call.timeout_seconds)
    started = perf_counter()
    handle = engine.acquisitions.acquire_fast(call.request, task, context)
    loop_budget.used_seconds += perf_counter() - started
    if handle is not None:
        return handle
    driver = TaskDriver(engine)
    return await run_steps(
        steps.acquire(engine, call, task, context, driver, _stopped, polls=False, begun=begun), driver
    )


def _stopped(holding: Collection[int]) -> list[int]:
    """Return what holds something and stops while the running task waits: this task, unless a time-out ends its wait.

    Most tasks that wait hold nothing. So this looks at the timers last, of which a loop may have thousands.
    """
    task = asyncio.current_task()
    if task is None:
        return []
    number = of_task(task)
    return [] if number not in holding or _is_bounded(task) else [number]


def _is_bounded(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is inside `asyncio.timeout`, as far as its loop shows its timers."""
    timers = getattr(task.get_loop(), "_scheduled", ())
    bounds = (getattr(getattr(timer, "_callback", None), "__self__", None) for timer in list(timers))
    return any(isinstance(bound, asyncio.Timeout) and getattr(bound, "_task", None) is task for bound in bounds)


async def _wait_for_iteration(engine: Engine, until: float | None) -> None:
    driver = TaskDriver(engine)
    try:
        await driver.dispatcher.wait_for_iteration(until)
    finally:
        driver.end()


async def release(engine: Engine, handle: Handle) -> None:
    """Release slots. This never fails, and a cancellation does not keep it from releasing."""
    started, was_released = perf_counter(), NOT_RELEASED
    with suppress(Busy):
        was_released = engine.acquisitions.release_fast(handle)
    loop_budget.used_seconds += perf_counter() - started
    if not was_released:
        await run_steps(steps.release(engine, handle), TaskDriver(engine))
