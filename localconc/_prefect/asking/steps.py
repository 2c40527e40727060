"""What the steps of a call yield: a question to the server, or a pause.

The steps are generators. A driver (a thread in `threads`, a task in `tasks`) carries out what they yield. It sends back
the answer of an `Ask`, or throws in what went wrong: `NoAnswer` when its deadline has passed, what the question raised,
or what interrupted the wait. So the steps are written once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from localconc._prefect.server.connection import Connection

Result = TypeVar("Result")


class Ask(NamedTuple):
    """Ask the server, and wait for its answer until a moment of the monotonic clock; None waits without end.

    `undo` gets the answer if it comes too late. A question without `undo` is asked even if its caller has gone.
    """

    question: Callable[[Connection], Any]
    until: float | None
    undo: Callable[[Any], object] | None = None


class Pause(NamedTuple):
    """Wait until a moment of the monotonic clock, or for a hint that slots of one of these names may be free.

    Attributes:
        begun: when the call began to wait; calls that began earlier receive hints first.
        seen: the number of the latest hint that the last answer took into account; a newer one ends the pause at once.
    """

    until: float
    names: tuple[str, ...] = ()
    begun: float = 0.0
    seen: int = 0


#: Steps yield what to wait for, and return how it ended.
Steps = Generator[Ask | Pause, Any, Result]
