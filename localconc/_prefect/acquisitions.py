"""The steps of a call, without saying how to wait.

The generators here yield an `Ask` where they need an answer, and a `Pause` where they wait for slots. The driver (a
thread in `threads`, a task in `tasks`) sends back the answer of an `Ask`, or throws in what went wrong: `NoAnswer` when
its deadline has passed, what the question raised, or what interrupted the wait. So the steps are written once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from localconc._prefect import errors
from localconc._prefect.admission import Denied, Taken
from localconc._prefect.errors import NoAnswer, Refused, Unreachable
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError, StoreError

if TYPE_CHECKING:
    from localconc._prefect.admission import Admission
    from localconc._prefect.connection import Connection
    from localconc._prefect.leases import Hold, Leases
    from localconc._prefect.shared import Call

Result = TypeVar("Result")

#: How long a call that has no time-out, or tries once, waits for an answer; and for a server that was there before.
SERVER_SECONDS = 10.0

#: How long leaving a block waits for the server, before the slots are released in the background.
RELEASE_SECONDS = 5.0

#: A shorter time-out still gives the server this long for the first answer.
FIRST_ANSWER_SECONDS = 0.25

#: Pauses between questions to a server that does not answer.
SHORT_OUTAGE_PAUSE_SECONDS = 0.1
LONG_OUTAGE_PAUSE_SECONDS = 2.0

#: The server's estimates may be next to nothing.
MIN_POLL_SECONDS = 0.02

#: The server's estimates grow with every waiter; slots that another process frees are found after this long at most.
MAX_POLL_SECONDS = 10.0

#: A call whose time runs out before the server's estimate asks once more, this long before its end.
LAST_TRY_SECONDS = 0.2


class Ask(NamedTuple):
    """Ask the server, and wait for its answer until a moment of the monotonic clock, or without end.

    `undo` gets the answer if it comes too late. Without it, the question is asked even if nobody waits any more.
    """

    question: Callable[[Connection], Any]
    until: float | None
    undo: Callable[[Any], object] | None = None


class Pause(NamedTuple):
    """Wait until a moment of the monotonic clock, or until this process releases slots of one of these names."""

    until: float
    names: tuple[str, ...]


#: Steps yield what to wait for, and return how it ended.
Steps = Generator[Ask | Pause, Any, Result]


class Patience:
    """How long to wait for the server: one deadline covers all questions and pauses of a call."""

    def __init__(self, connection: Connection, timeout_seconds: float | None) -> None:
        self._connection = connection
        self.begun = time.monotonic()
        self.timeout_seconds = timeout_seconds
        self.deadline = None if timeout_seconds is None else self.begun + float(timeout_seconds)
        self.is_waiting_for_slots = False
        self.trouble: Exception | None = None

    @property
    def is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def ask(
        self, question: Callable[[Connection], Result], undo: Callable[[Any], object] | None = None
    ) -> Steps[Result]:
        """Ask until there is an answer, as long as the call may take.

        Raises:
            NoAnswer: the deadline of a call that waits for slots has passed.
            StoreError: the server can't be used.
        """
        pause = SHORT_OUTAGE_PAUSE_SECONDS
        while True:
            try:
                answer: Result = yield Ask(question, self._answer_by(), undo)
            except NoAnswer:
                if self.is_waiting_for_slots or (self._connection.has_answered and self.deadline is not None):
                    raise
                raise errors.silent(self._connection.url, self._seconds()) from self.trouble
            except Unreachable as trouble:
                self.trouble = trouble
                yield from self._wait_for_server(trouble, pause)
                pause = min(2 * pause, LONG_OUTAGE_PAUSE_SECONDS)
            else:
                self.trouble = None
                return answer

    def _answer_by(self) -> float | None:
        now = time.monotonic()
        if self.deadline is None:
            return None if self.is_waiting_for_slots else now + SERVER_SECONDS
        if self.is_waiting_for_slots:
            return max(self.deadline, now)
        return max(self.deadline, self.begun + (FIRST_ANSWER_SECONDS if self.timeout_seconds else SERVER_SECONDS))

    def _wait_for_server(self, trouble: Unreachable, pause: float) -> Steps[None]:
        """Pause before the next question to a server that gives no answer.

        A call that waits for slots also waits for a server that restarts. One that has just come waits for a server
        that this process knows, but not for one that was never there.
        """
        give_up_at = self.deadline
        if not self.is_waiting_for_slots:
            patience = SERVER_SECONDS if self._connection.has_answered else 0.0
            give_up_at = min(self.begun + patience, give_up_at or self.begun + patience)
        now = time.monotonic()
        if give_up_at is not None and now + pause >= give_up_at:
            if not self.is_waiting_for_slots:
                raise errors.unreachable(self._connection.url, trouble) from trouble
            yield Pause(give_up_at, ())
            raise NoAnswer
        yield Pause(now + pause, ())

    def _seconds(self) -> float:
        return round(time.monotonic() - self.begun, 1)


def acquire(connection: Connection, admission: Admission, leases: Leases, call: Call) -> Steps[Taken]:
    """Take what a call asks for, as soon as the server admits it.

    Raises:
        AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError, StoreError: it was not admitted.
    """
    patience = Patience(connection, call.timeout_seconds)
    question = partial(admission.attempt, call)
    retries_left, retry_at = call.max_retries, 0.0
    denied: Denied | None = None
    while True:
        try:
            answer: Taken | Denied = yield from patience.ask(question, partial(_give_back, leases))
        except NoAnswer:
            _raise_timed_out(patience, denied, call)
        if isinstance(answer, Taken):
            return answer
        now = time.monotonic()
        is_first, denied = denied is None, answer
        if patience.is_over:
            _raise_timed_out(patience, denied, call)
        if is_first or now >= retry_at:
            if retries_left is not None:
                retries_left -= 0 if is_first else 1
                if retries_left <= 0:
                    raise ConcurrencySlotAcquisitionError(f"Not admitted, and no retries are left: {answer.reason}")
            retry_at = now + max(answer.retry_after, MIN_POLL_SECONDS)
        patience.is_waiting_for_slots = True
        yield Pause(_next_attempt(now, retry_at, patience.deadline), answer.names)
        if patience.is_over:
            _raise_timed_out(patience, denied, call)


def release(leases: Leases, hold: Hold) -> Steps[None]:
    """Release, and wait until the slots are free; the background goes on with what takes too long. Never fails."""
    question = leases.releasing(hold)
    if question is None:
        return
    with suppress(NoAnswer, StoreError):
        yield Ask(question, time.monotonic() + RELEASE_SECONDS)


def perform(connection: Connection, question: Callable[[Connection], Result]) -> Steps[Result]:
    """Ask for something that waits for no slots.

    Raises:
        StoreError: the server can't be used.
    """
    try:
        return (yield from Patience(connection, None).ask(question))
    except Refused as refusal:
        raise errors.refused(connection.url, refusal) from None


def _give_back(leases: Leases, answer: Taken | Denied) -> None:
    if isinstance(answer, Taken):
        leases.release_later(answer.hold)


def _next_attempt(now: float, retry_at: float, deadline: float | None) -> float:
    moment = min(retry_at, now + MAX_POLL_SECONDS)
    if deadline is None or moment < deadline - LAST_TRY_SECONDS:
        return moment
    last_try = deadline - LAST_TRY_SECONDS
    return last_try if now < last_try - LAST_TRY_SECONDS else deadline


def _raise_timed_out(patience: Patience, denied: Denied | None, call: Call) -> NoReturn:
    reason = "the server has not answered" if denied is None else denied.reason
    if patience.trouble is not None:
        reason += f"; the server can't be reached ({patience.trouble})"
    error = AcquireConcurrencySlotTimeoutError(
        f"Attempt to acquire concurrency slots timed out after {call.timeout_seconds} second(s): {reason}"
    )
    error.names = call.request.names if denied is None else denied.names
    error.holders = []  # the server tells neither of these
    error.requests_ahead = 0
    raise error
