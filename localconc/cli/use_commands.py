"""Commands that use limits: run another command while holding slots, or wait for a rate limit."""

from __future__ import annotations

import signal
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localconc.cli import child, options
from localconc.cli.faults import INTERRUPTED, TIMED_OUT, CommandError, WrongUsage
from localconc.cli.refusal import explain
from localconc.cli.status_line import status_line
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError, LocalconcError
from localconc.sync import concurrency, rate_limit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class _Ended(BaseException):
    """A signal says that this process shall end."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number


def run(
    names: options.Names,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND [ARG...]", help="What to run.", show_default=False)
    ] = None,
    occupy: options.Occupy = "1",
    limit: options.Limit = None,
    slot_decay_per_second: options.Decay = None,
    rate: options.Rate = None,
    timeout: options.Timeout = None,
    strict: options.Strict = False,
    exit_code: options.ExitCode = str(TIMED_OUT),
) -> int:
    """Run a command while holding slots, and exit as it does.

    Waits in line for the slots first. Signals are passed on to the command. Its slots come back when it ends. If
    localconc run itself is killed, the slots stay taken for as long as the command lives: the limit counts what
    really runs.

    The exit status is the command's (128 + n where signal n ended it); 124 or --exit-code where the time is up, 127
    for a command that does not exist, 126 for one that can't be run, 130 for Ctrl-C while waiting.
    """
    words = list(command or [])
    if not words:
        raise WrongUsage(f"Which command? localconc run {names} -- COMMAND")
    asked = _asked(names, occupy, limit, slot_decay_per_second, rate, timeout, strict)
    timed_out = options.whole("--exit-code", exit_code, 0, 255)
    with ExitStack() as holding:
        with _waiting(asked, timed_out):
            concurrent = concurrency(**asked)
            child.check_exists(words)
            occupancy = holding.enter_context(concurrent)
        engine = getattr(occupancy, "engine", None)  # none of a server: its lease ends by itself
        if engine is None or engine.owner is None or not engine.held:
            return child.run(words, None, lambda pid: None)
        return child.run(words, engine.owner.descriptor, lambda pid: _hand_to(engine, pid, words))


def rate_(
    names: options.Names,
    occupy: options.Occupy = "1",
    limit: options.Limit = None,
    slot_decay_per_second: options.Decay = None,
    rate: options.Rate = None,
    timeout: options.Timeout = None,
    strict: options.Strict = False,
    exit_code: options.ExitCode = str(TIMED_OUT),
) -> None:
    """Wait until a rate limit admits one more, and return.

    For loops in a shell. The slots are taken for good and drain by themselves.
    """
    asked = _asked(names, occupy, limit, slot_decay_per_second, rate, timeout, strict)
    timed_out = options.whole("--exit-code", exit_code, 0, 255)
    with _waiting(asked, timed_out, needs_decay=True):
        rate_limit(**asked)


def _asked(
    names: str,
    occupy: str,
    limit: str | None,
    slot_decay_per_second: str | None,
    rate: str | None,
    timeout: str | None,
    strict: bool,
) -> dict[str, Any]:
    """What to ask the library for. A misspelt name makes no limit: only --limit does."""
    return {
        "names": options.split_names(names),
        "occupy": options.whole("--occupy", occupy, 1),
        "timeout_seconds": options.seconds("--timeout", timeout),
        "create_if_missing": limit is not None,
        "limit": options.whole_or_none("--limit", limit),
        "slot_decay_per_second": options.decay(slot_decay_per_second, rate),
        "strict": strict,
    }


@contextmanager
def _waiting(asked: dict[str, Any], timed_out: int, *, needs_decay: bool = False) -> Iterator[None]:
    """Wait for what is asked in the block; a wait that ends without it ends the command, with its exit status."""
    try:
        with _signals_withdraw(), status_line(asked["names"]):
            yield
    except AcquireConcurrencySlotTimeoutError as error:
        raise CommandError(str(error), timed_out) from None
    except ConcurrencySlotAcquisitionError as error:
        raise CommandError(explain(error, asked, needs_decay=needs_decay)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except _Ended as end:
        raise typer.Exit(end.status) from None


@contextmanager
def _signals_withdraw() -> Iterator[None]:
    """Let a signal to end leave the queue first."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _hand_to(engine: Any, pid: int, words: list[str]) -> None:
    """Let the slots be the command's: theirs who look at the limit, and its own should this process be killed."""
    from localconc._engine.blocking import run as insist

    with suppress(LocalconcError):  # then the descriptor that it inherited keeps them taken all the same
        insist(engine, lambda: engine.become_command(pid, " ".join(words)[:200]))
