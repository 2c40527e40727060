"""How a thread goes the steps of a call: by sleeping where they pause."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from localconc._engine.acquiring import STORE_TIMEOUT_SECONDS, Nap, Sleep, Steps, StoreHeldUp, insist
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from localconc._engine.engine import Engine
    from localconc._engine.wakeup import Mailbox, Signal

Result = TypeVar("Result")


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
