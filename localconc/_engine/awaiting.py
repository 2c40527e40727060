"""How a task goes the steps of a call: by awaiting where they pause."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from localconc._engine import acquiring
from localconc._engine.acquiring import Nap, Sleep, Steps
from localconc._engine.line import MOST_SECONDS_A_TURN, pace
from localconc._engine.reception import Reception, reception_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from localconc._engine.calls import Call
    from localconc._engine.engine import Engine
    from localconc._engine.line import Arrival
    from localconc._engine.occupancy import Occupancy
    from localconc._engine.wakeup import Mailbox

Result = TypeVar("Result")


class Visit:
    """One call's way through the reception of its loop: entered when there is something to wait for."""

    __slots__ = ("_arrival", "_reception", "_ticket", "engine")

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reception: Reception | None = None
        self._arrival: Arrival | None = None
        self._ticket = 0

    @property
    def reception(self) -> Reception:
        if self._reception is None:
            self._reception = reception_of(self.engine, asyncio.get_running_loop())
            self._reception.enter()
        return self._reception

    def mailbox(self) -> Mailbox:
        return self.reception.mailbox()

    def arrival(self, ticket: int) -> Arrival:
        """What is set when the ticket is told of; between two pauses as well, and the next one ends at once then."""
        if self._arrival is None:
            self._ticket, self._arrival = ticket, self.reception.expect(ticket)
        return self._arrival

    def end(self) -> None:
        reception, self._reception = self._reception, None
        if reception is not None:
            if self._arrival is not None:
                reception.forget(self._ticket, self._arrival)
            reception.leave()


async def drive(steps: Steps[Result], visit: Visit) -> Result:
    """Go the steps to their end. What interrupts a pause is raised in the steps, which clean up after themselves."""
    go: Callable[[Any], Nap | Sleep] = steps.send
    argument: Any = None
    try:
        while True:
            begun = perf_counter()
            try:
                pause = go(argument)
            finally:
                pace.held_up_seconds += perf_counter() - begun
            try:
                if isinstance(pause, Nap):
                    argument = None
                    await visit.reception.nap(pause)
                else:  # ten thousand may be suspended here: no more coroutines than needed
                    arrival = visit.arrival(pause.ticket)
                    await visit.engine.clock.pause_task(arrival, pause.until)
                    argument = arrival.clear()
            except BaseException as interruption:
                go, argument = steps.throw, interruption
            else:
                go = steps.send
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        argument = None  # its traceback refers to this very frame
        visit.end()


async def acquire(engine: Engine, call: Call, task: str) -> Occupancy:
    """Acquire what a call asks for; `task` is the name of whoever calls."""
    begun = None
    if pace.held_up_seconds >= MOST_SECONDS_A_TURN:
        begun = engine.clock.now()
        await _line_up(engine, None if call.timeout_seconds is None else begun + call.timeout_seconds)
    started = perf_counter()
    occupancy = engine.take_at_once(call.request, task)
    pace.held_up_seconds += perf_counter() - started
    if occupancy is not None:
        return occupancy
    visit = Visit(engine)
    steps = acquiring.acquire(
        engine, call.request, task, call.timeout_seconds, call.max_retries, visit.mailbox, polls=False, begun=begun
    )
    return await drive(steps, visit)


async def _line_up(engine: Engine, until: float | None) -> None:
    visit = Visit(engine)
    try:
        await visit.reception.line_up(until)
    finally:
        visit.end()


async def give_back(engine: Engine, occupancy: Occupancy) -> None:
    """Give slots back. Never fails; if it is cancelled, the slots are given back all the same."""
    started = perf_counter()
    given_back = engine.give_back_at_once(occupancy)
    pace.held_up_seconds += perf_counter() - started
    if not given_back:
        await drive(acquiring.give_back(engine, occupancy), Visit(engine))
