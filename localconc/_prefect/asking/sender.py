"""The thread that asks the server all questions of this process, one after another.

No signal interrupts this thread, so it receives the answer to every question that it sends. If the call behind a
question is interrupted meanwhile, this thread releases what the server granted. One thread is also enough: on SQLite
the server answers several questions at once no sooner.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from localconc._locks import new_lock
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._prefect.server.connection import Connection

Answer = TypeVar("Answer")

logger = logging.getLogger("localconc")

#: How long a fork waits for the question under way: a child that is made meanwhile may inherit a lock that is held.
FORK_PATIENCE_SECONDS = 1.0


class Question(Generic[Answer]):
    """Something to ask the server.

    Args:
        ask: asks it, in the sending thread.
        on_answer: called there when there is an answer or an error.
        undo: called with the answer if the caller has gone. A question without it is asked in any case.
    """

    __slots__ = ("_answer", "_ask", "_error", "_is_answered", "_is_dropped", "_is_granted", "_on_answer", "_undo")

    def __init__(
        self,
        ask: Callable[[Connection], Answer],
        on_answer: Callable[[], object],
        undo: Callable[[Answer], object] | None = None,
    ) -> None:
        self._ask = ask
        self._on_answer = on_answer
        self._undo = undo
        self._answer: Any = None
        self._error: BaseException | None = None
        self._is_answered = self._is_granted = self._is_dropped = False

    def take_answer(self) -> Answer:
        """Return the answer, or raise the error. Only after `on_answer` was called."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this very frame
        answer: Answer = self._answer
        return answer

    def fail(self, error: Exception) -> None:
        """Answer with an error without asking."""
        self._error = error
        self._is_answered = True
        self._on_answer()

    def drop(self) -> None:
        """Note that the caller no longer waits for the answer."""
        # This and `be_asked` each set their own mark before they read the other's, so whatever the order, at least one
        # of them sees both. Both may: an undo must bear being repeated.
        self._is_dropped = True
        if self._is_answered:
            self._undo_answer()

    def be_asked(self, connection: Connection) -> None:
        """Get the answer. Runs in the sending thread; never raises."""
        if self._is_dropped and self._undo is not None:
            return
        try:
            connection.check()
            self._answer = self._ask(connection)
            self._is_granted = True
        except BaseException as error:
            self._error = error
        self._is_answered = True
        if self._is_dropped:
            self._undo_answer()
            return
        try:
            self._on_answer()
        except RuntimeError:  # the event loop of the task that asked is closed
            self.drop()

    def _undo_answer(self) -> None:
        if self._undo is not None and self._is_granted:
            self._undo(self._answer)


class Sender:
    """The sending thread, which starts with the first question, and its work.

    Args:
        connection: to the server; used by this thread alone.

    Attributes:
        asking: held while a question is under way, and by whoever lets none be.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._inbox: SimpleQueue[Question[Any] | None] = SimpleQueue()  # may be put into while memory is collected
        self._timed: list[tuple[float, int, Callable[[Connection], object]]] = []
        self._numbers = itertools.count()
        self._starting = new_lock()  # a collected hold may submit a question in the middle of `_start`
        self.asking = new_lock()
        self._thread: threading.Thread | None = None
        self._is_timed_turn = False
        self._is_stopped = False

    def submit(self, question: Question[Any]) -> None:
        """Let the thread ask a question. May be called in any thread, at any moment."""
        if self._is_stopped:
            question.fail(StoreError("The connection to the Prefect server is closed."))
            return
        self._inbox.put(question)
        if self._thread is None:
            self._start()

    def is_this_thread(self) -> bool:
        """Return whether the sending thread itself calls this: it must not wait for its own answers."""
        return threading.current_thread() is self._thread

    def at(self, moment: float, work: Callable[[Connection], object]) -> None:
        """Let the thread do something at a moment of the monotonic clock. Only the sending thread calls this."""
        heapq.heappush(self._timed, (moment, next(self._numbers), work))

    def stop(self, patience_seconds: float) -> bool:
        """Answer what was asked so far, then end; return False if that takes longer than the patience."""
        thread = self._thread
        self._is_stopped = True
        if thread is None:
            return True
        self._inbox.put(None)
        thread.join(patience_seconds)
        return not thread.is_alive()

    # ---- the thread ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            self._thread = thread = threading.Thread(target=self._run, name="localconc-prefect", daemon=True)
            try:
                thread.start()
            except BaseException:
                if thread.ident is None:
                    self._thread = None
                raise

    def _run(self) -> None:
        with self.connection.in_use():
            while True:
                work = self._next_work()
                if work is None:
                    return
                with self.asking:
                    self._do(work)
                del work  # a grant whose caller has gone is released with its last reference

    def _do(self, work: Callable[[Connection], object]) -> None:
        try:
            work(self.connection)
        except Exception:
            logger.exception("The thread that talks to the Prefect server goes on after an error")

    def _next_work(self) -> Callable[[Connection], object] | None:
        """Wait for the next work. Questions and timed work take turns, so neither holds the other up."""
        while True:
            due_in = self._timed[0][0] - time.monotonic() if self._timed else None
            if due_in is None or due_in > 0:
                patience = due_in
            elif self._is_timed_turn:
                self._is_timed_turn = False
                return heapq.heappop(self._timed)[2]
            else:
                patience = 0.0
            self._is_timed_turn = True
            try:
                question = self._inbox.get(timeout=patience)
            except Empty:
                continue
            return None if question is None else question.be_asked
