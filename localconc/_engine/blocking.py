"""How a thread goes the steps of a call: by sleeping where they pause."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeVar

from localconc._engine import acquiring
from localconc._engine.acquiring import STORE_TIMEOUT_SECONDS, Nap, Sleep, Steps, StoreHeldUp, insist
from localconc._engine.faults import Busy, Damaged
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from localconc._engine.calls import Call
    from localconc._engine.engine import Engine
    from localconc._engine.occupancy import Occupancy
    from localconc._engine.wakeup import Mailbox, Signal

Result = TypeVar("Result")

#: How often slots are given back without a pause between; more would cost those who ask for slots more than it gains.
QUICK_TRIES = 2

#: Linux wakes who is sent a datagram on the sender's processor, in the belief that the sender is about to sleep: so let
#: whoever was given the slots run first. Halves the time from release to acquire; costs nothing if nobody is there.
_let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


class Post:
    """This call's mailbox: opened once there is something to wait for, put back afterwards."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mailbox: Mailbox | None = None

    def mailbox(self) -> Mailbox:
        if self._mailbox is None:
            self._mailbox = self._engine.take_mailbox()
        return self._mailbox

    def put_back(self) -> None:
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            self._engine.put_mailbox(mailbox)


def drive(engine: Engine, steps: Steps[Result], post: Post) -> Result:
    """Go the steps to their end. What interrupts a pause is raised inside the steps, which clean up."""
    go: Callable[[Any], Nap | Sleep] = steps.send
    argument: Any = None
    try:
        while True:
            pause = go(argument)
            try:
                argument = _pause(engine, pause, post)
            except BaseException as interruption:
                go, argument = steps.throw, interruption
            else:
                go = steps.send
    except StopIteration as end:
        result: Result = end.value
    except BaseException:
        steps.close()
        raise
    finally:
        argument = None  # its traceback refers to this very frame
        post.put_back()
    return result


def _pause(engine: Engine, pause: Nap | Sleep, post: Post) -> list[Signal] | None:
    """Sleep; returns the signals that came meanwhile."""
    if isinstance(pause, Nap):
        time.sleep(pause.seconds)
        return None
    mailbox = post.mailbox()
    engine.clock.pause(mailbox, pause.until, engine.watch.descriptor)
    return mailbox.take()


def acquire(engine: Engine, call: Call, thread: str) -> Occupancy:
    """Acquire what a call asks for; `thread` is the name of whoever calls."""
    occupancy = engine.take_at_once(call.request, thread)
    if occupancy is not None:
        return occupancy
    post = Post(engine)
    steps = acquiring.acquire(
        engine, call.request, thread, call.timeout_seconds, call.max_retries, post.mailbox, polls=True
    )
    return drive(engine, steps, post)


def give_back(engine: Engine, occupancy: Occupancy) -> None:
    """Give slots back. Never fails: what the store does not allow now is done in the background."""
    if engine.give_back_at_once(occupancy):
        return
    for _ in range(QUICK_TRIES):  # whoever waits for the slots is not to wait for anything but the store
        try:
            if engine.give_back(occupancy):
                _let_others_run()
            return
        except Busy:
            _let_others_run()
        except (Damaged, StoreError):
            break
    drive(engine, acquiring.give_back(engine, occupancy), Post(engine))


def run(engine: Engine, operation: Callable[[], Result]) -> Result:
    """Carry out an operation that does not wait for slots, as soon as the store is free for it.

    Raises:
        StoreError: the store can't be used, or is held up by another process for too long.
    """
    deadline = engine.clock.now() + STORE_TIMEOUT_SECONDS
    try:
        return drive(engine, insist(engine, operation, deadline), Post(engine))
    except StoreHeldUp:
        raise StoreError(
            f"The database {engine.database.path} was held by another process for {STORE_TIMEOUT_SECONDS:.0f} seconds: "
            "is one stopped in the middle of a call? Let it go on, or end it."
        ) from None
