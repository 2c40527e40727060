"""How a thread takes the steps of a call: it sleeps at each pause."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeVar

from localconc._engine.acquiring.contexts import stopped_by_caller
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.waiting import outcomes, steps
from localconc._engine.waiting.pauses import Backoff, Park, Steps, retry_while_busy
from localconc._engine.waiting.timing import QUICK_RELEASES, STORE_TIMEOUT_SECONDS
from localconc._locks import ENDLESSLY
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from localconc._engine.core.calls import Call
    from localconc._engine.engine import Engine
    from localconc._engine.holding.holdings import Handle
    from localconc._engine.waiting.mailboxes.mailbox import Wakeup

Result = TypeVar("Result")

#: Linux wakes the receiver of a datagram on the sender's processor, because it expects the sender to sleep soon. So the
#: sender lets the new holder run first. That halves the time from release to acquire, and costs nothing else.
_let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


def run_steps(engine: Engine, steps: Steps[Result]) -> Result:
    """Take the steps to their end. An exception that interrupts a pause is raised inside the steps, which clean up."""
    go: Callable[[Any], Backoff | Park] = steps.send
    argument: Any = None
    try:
        for _ in ENDLESSLY:
            pause = go(argument)
            try:
                argument = _pause(engine, pause)
            except BaseException as interruption:
                go, argument = steps.throw, interruption
            else:
                go = steps.send
    except StopIteration as end:
        result: Result = end.value
    except BaseException:
        steps.close()  # an interrupt struck between two steps; a collected generator would clean up too late
        raise
    finally:
        argument = None  # its traceback refers to this very frame
    return result


def _pause(engine: Engine, pause: Backoff | Park) -> list[Wakeup] | None:
    """Sleep; return the wakeups that came meanwhile."""
    if isinstance(pause, Backoff):
        time.sleep(pause.seconds)
        return None
    engine.clock.pause(pause.mailbox, pause.until, pause.watched_fd)
    return pause.mailbox.take()


def acquire(engine: Engine, call: Call, thread: str, context: int) -> Handle:
    """Acquire what a call asks for; `thread` names the caller, `context` identifies it."""
    handle = engine.acquisitions.acquire_fast(call.request, thread, context)
    if handle is not None:
        return handle
    return run_steps(
        engine, steps.acquire(engine, call, thread, context, engine.mailboxes, stopped_by_caller, polls=True)
    )


def release(engine: Engine, handle: Handle) -> None:
    """Release slots. This never fails: if the store does not allow it, the background goes on with it."""
    acquisitions = engine.acquisitions
    if acquisitions.release_fast(handle):
        return
    for _ in range(QUICK_RELEASES):  # without the generator, so that the next waiter gets the slots sooner
        try:
            if acquisitions.release(handle):
                _let_others_run()
            return
        except Busy:
            _let_others_run()
        except (Damaged, StoreError):
            break
    run_steps(engine, steps.release(engine, handle))


def run(engine: Engine, operation: Callable[[], Result]) -> Result:
    """Carry out an operation that does not wait for slots, as soon as the store is free for it.

    Raises:
        StoreError: the store can't be used, or another process holds it for too long.
    """
    deadline = engine.clock.now() + STORE_TIMEOUT_SECONDS
    try:
        return run_steps(engine, retry_while_busy(engine, operation, deadline))
    except outcomes.StoreTimeout:
        raise outcomes.store_held(str(engine.store.database.path), STORE_TIMEOUT_SECONDS) from None
