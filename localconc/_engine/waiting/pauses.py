"""The pauses that the steps of a call yield to their driver."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from localconc._engine.core.errors import Busy, Damaged, shown
from localconc._engine.waiting import outcomes, timing
from localconc._locks import ENDLESSLY
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from localconc._engine.core.clock import Mailbox
    from localconc._engine.engine import Engine
    from localconc._engine.liveness.owner import Owner
    from localconc._engine.waiting.mailboxes.mailbox import Wakeup

    class MailboxSource(Protocol):
        """Where the steps of a call get a mailbox: a thread gets one of its own, tasks share that of their loop."""

        def take(self, owner: Owner) -> Any:
            """Return a mailbox."""

        def put(self, mailbox: Any) -> None:
            """Take a mailbox back."""


Result = TypeVar("Result")


class Backoff(NamedTuple):
    """Pause for a moment, because the store is busy; at `until`, on the engine's clock, the call gives up."""

    seconds: float
    until: float | None


class Park(NamedTuple):
    """Pause until a moment on the engine's clock, a wakeup for the serial, or news on the watched descriptor."""

    until: float | None
    serial: int
    mailbox: Mailbox
    watched_fd: int | None


#: The steps of a call. The driver receives pauses, sends wakeups, and gets the result at the end.
Steps = Generator[Backoff | Park, "list[Wakeup] | None", Result]


def retry_while_busy(engine: Engine, operation: Callable[[], Result], deadline: float | None) -> Steps[Result]:
    """Retry an operation until the store is free for it; rebuild the store if it is damaged.

    Raises:
        StoreTimeout: the store stayed busy until the deadline.
        StoreError: the store can't be used.
    """
    seconds = timing.MIN_BACKOFF_SECONDS
    rebuilds = 0
    is_damaged = False
    busy_since = give_up_at = None
    this_retry = object()
    try:
        for _ in ENDLESSLY:
            try:
                if is_damaged:
                    engine.rebuild()
                    is_damaged = False
                return operation()
            except Busy:
                engine.retries.add(this_retry)
                now = engine.clock.now()
                busy_since = busy_since or now
                if deadline is not None:
                    give_up_at = give_up_at or max(deadline, now + timing.STORE_PATIENCE_SECONDS)
                    if now >= give_up_at:
                        raise outcomes.StoreTimeout from None
                yield Backoff(seconds, give_up_at)
                longest = max(timing.MAX_BACKOFF_SECONDS, (now - busy_since) * timing.MAX_BACKOFF_SHARE)
                crowd = max(1.0, len(engine.retries) / timing.MAX_RETRYING)
                seconds = min(seconds * timing.BACKOFF_GROWTH, longest, timing.MAX_BACKOFF_HELD_UP_SECONDS * crowd)
            except Damaged as damage:
                rebuilds += 1
                if rebuilds > timing.MAX_REBUILDS:
                    raise StoreError(
                        f"The database {shown(engine.store.database.path)} is damaged ({damage}) and can't be "
                        "rebuilt: move it away."
                    ) from damage
                is_damaged = True
    finally:
        engine.retries.discard(this_retry)
    raise AssertionError("the loop does not end")
