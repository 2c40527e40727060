"""The slots that the markers of a test ask for."""

from __future__ import annotations

import inspect
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from localconc import sync
from localconc._engine import registry
from localconc._engine.core import arguments
from localconc._engine.homes.home import home, is_on_server, user_home
from localconc._engine.operations.reading import look
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError, LocalconcError
from localconc.limits import read_holders, read_limit, read_waiters, update_limit
from localconc.testing.block import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from localconc._engine.core.records import LimitRow
    from localconc._engine.holding.occupancy import Occupancy

__all__ = ["Demand", "SlotNumbers", "acquire", "demands_of", "home_of"]

#: After this long, a test that waits says so.
NOTICE_SECONDS: Final = 2.0

#: How often the notice checks after that, if the test was slow for another reason.
LOOK_AGAIN_SECONDS: Final = 0.2

#: How many holders the notice names.
MAX_NAMED_HOLDERS: Final = 3

_CALLS: Final[dict[str, Callable[..., Any]]] = {"concurrency": sync.concurrency, "rate_limit": sync.rate_limit}


class Mark(Protocol):
    """A marker with its arguments, as pytest has it."""

    @property
    def args(self) -> tuple[Any, ...]: ...

    @property
    def kwargs(self) -> Mapping[str, Any]: ...


class Demand(NamedTuple):
    """What a test asks for of one limit: the call (`concurrency` or `rate_limit`) with its options."""

    call: str
    name: str
    options: dict[str, Any]


def demands_of(test: str, markers: Iterable[tuple[str, Mark]]) -> list[Demand]:
    """Return what the markers of a test ask for, in one order for all tests: so no two wait for each other.

    Rates come last: a test takes none of them while it still waits for other slots.

    Args:
        test: its name.
        markers: the call that each one stands for, and the marker; of several for one limit, the first counts.

    Raises:
        ValueError, TypeError: the arguments of a marker are wrong; the message names the marker and the test.
    """
    demands: dict[tuple[str, str], Demand] = {}
    for call, marker in markers:
        try:
            options = inspect.signature(_CALLS[call]).bind(*marker.args, **marker.kwargs).arguments
            for name in arguments.limit_names(options.pop("names")):
                demands.setdefault((call, name), Demand(call, name, options))
        except (TypeError, ValueError) as error:
            raise type(error)(f"@pytest.mark.{call} of {test}: {error}") from None
    return [demands[key] for key in sorted(demands)]


class SlotNumbers(dict[str, tuple[int, ...]]):
    """Slot numbers by the names of limits. Of a limit whose slots have none, a look-up says why.

    Args:
        held: the occupancies by the names of their limits.
        names: of the limits; one that is not held has no numbers.
    """

    def __init__(self, held: Mapping[str, Occupancy], names: Iterable[str]) -> None:
        super().__init__()
        self._reasons: dict[str, str] = {}
        for name in names:
            try:
                self[name] = held[name].numbers_of(name) if name in held else ()
            except ValueError as error:  # the limit has a decay
                self._reasons[name] = str(error)

    def __missing__(self, name: str) -> tuple[int, ...]:
        if name in self._reasons:
            raise ValueError(self._reasons[name])
        raise KeyError(name)


def home_of(variables: Mapping[str, str | None]) -> Path:
    """Return the home for marked tests that goes with an environment: tests may have changed the present one.

    Raises:
        StoreError: the environment names no home.
    """
    with _environment(variables):
        # Markers limit the tests of this machine, even if a server keeps the limits of the tested code.
        return (user_home() if is_on_server() else home()) / "pytest"


@contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    if not variables:
        yield
        return
    (name, value), *others = variables.items()
    with environment(name, value), _environment(dict(others)):
        yield


def acquire(
    test: str,
    demands: Iterable[Demand],
    directory: Path,
    timeout_seconds: float | None,
    say: Callable[[str], None],
    held: ExitStack,
) -> dict[str, Occupancy]:
    """Acquire what a test asks for; return the occupancies by the names of their limits.

    Args:
        test: its name.
        demands: what it asks for.
        directory: the home to use.
        timeout_seconds: how long the test may wait for all of it; None for as long as it takes.
        say: called once in another thread, with a line of text, if the test waits for long.
        held: releases the slots at its end.

    Raises:
        ConcurrencySlotAcquisitionError: a limit is not declared, or as of the calls.
        AcquireConcurrencySlotTimeoutError, ValueError, TypeError, StoreError: as of the calls.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    occupancies: dict[str, Occupancy] = {}
    with environment("LOCALCONC_HOME", str(directory)), _Notice(test, say) as notice:
        for demand in demands:
            notice.name = demand.name
            with _naming_marker(test, demand):
                options = _declared(test, demand, directory)
                if demand.call == "rate_limit":
                    with _deadline(options, deadline, timeout_seconds):
                        sync.rate_limit(demand.name, **options)
                    continue
                options.setdefault("label", test[-arguments.MAX_LABEL_LENGTH :])
                with _deadline(options, deadline, timeout_seconds):
                    occupancies[demand.name] = held.enter_context(sync.concurrency(demand.name, **options))
    return occupancies


@contextmanager
def _naming_marker(test: str, demand: Demand) -> Iterator[None]:
    """Begin what is said of a bad argument, or of a refusal, with the marker that caused it."""
    marker = f"@pytest.mark.{demand.call} of {test}: "
    try:
        yield
    except (ValueError, TypeError, ConcurrencySlotAcquisitionError) as error:
        is_of_marker = isinstance(error, ConcurrencySlotAcquisitionError) or not isinstance(error, LocalconcError)
        if is_of_marker and not str(error).startswith(marker):
            error.args = (f"{marker}{error}",)
        raise


@contextmanager
def _deadline(options: dict[str, Any], deadline: float | None, timeout_seconds: float | None) -> Iterator[None]:
    """Let a call give up at a deadline, unless it does so earlier by its own options."""
    own = arguments.timeout(options.get("timeout_seconds"))
    if deadline is None or timeout_seconds is None:
        yield
        return
    remaining = max(0.0, round(deadline - time.monotonic(), 3))
    if own is not None and own <= remaining:
        yield
        return
    options["timeout_seconds"] = remaining
    try:
        yield
    except AcquireConcurrencySlotTimeoutError as error:
        text = str(error).replace(f"after {remaining} second(s)", f"after {timeout_seconds:g} second(s)", 1)
        error.args = (f"{text} (localconc_timeout is {timeout_seconds:g} s)",)
        raise


# ---- declared limits -------------------------------------------------------------------------------------------------


def _declared(test: str, demand: Demand, directory: Path) -> dict[str, Any]:
    """Return the options of a call, once it is sure that its limit is declared.

    The numbers of the marker win over those that an earlier run left; an operator's `active` stays.
    """
    options = dict(demand.options)
    stated = {key: options[key] for key in ("limit", "slot_decay_per_second") if options.get(key) is not None}
    row = _row(demand.name)
    if "limit" not in stated and options.get("strict") is None:
        if row is None or not row.active:
            raise ConcurrencySlotAcquisitionError(_undeclared(test, demand, directory, row))
        options["strict"] = True
    if row is not None and row.configured and _differs(row, stated):
        update_limit(demand.name, **stated)
    return options


def _row(name: str) -> LimitRow | None:
    return look(registry.current(), lambda ledger: ledger.limit_named(name))


def _differs(row: LimitRow, stated: dict[str, Any]) -> bool:
    stored = {"limit": row.limit, "slot_decay_per_second": row.decay}
    return any(stored[key] != value for key, value in stated.items())


def _undeclared(test: str, demand: Demand, directory: Path, row: LimitRow | None) -> str:
    is_missing = row is None or not row.configured
    remedy = f"create {demand.name!r} --limit …" if is_missing else f"enable {demand.name!r}"
    return (
        f"@pytest.mark.{demand.call} of {test}: no limit {demand.name!r} {'exists' if is_missing else 'is active'} in "
        f"{directory}, so nothing would limit the test. Give the marker limit=…, or declare the limit there: "
        f"LOCALCONC_HOME={directory} localconc {remedy}"
    )


# ---- long waits ------------------------------------------------------------------------------------------------------


class _Notice:
    """Says once that a test waits, if it does so for long.

    Attributes:
        name: of the limit that is being acquired.
    """

    def __init__(self, test: str, say: Callable[[str], None]) -> None:
        self._test = test
        self._say = say
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="localconc-notice", daemon=True)
        self.name = ""

    def __enter__(self) -> _Notice:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()  # it uses the environment variable that the block has set

    def _watch(self) -> None:
        seconds = NOTICE_SECONDS
        while not self._is_over.wait(seconds):
            seconds = min(NOTICE_SECONDS, LOOK_AGAIN_SECONDS)
            with suppress(LocalconcError):  # the test itself says what is wrong with the store
                if any(waiter.pid == os.getpid() for waiter in read_waiters(self.name)):
                    self._say(f"localconc: {self._test} waits for {self.name!r}: {_reason(self.name)}")
                    return


def _reason(name: str) -> str:
    limit = read_limit(name)
    text = f"{limit.active_slots} of {limit.limit} in use"
    if limit.paused_until is not None:
        text += f", paused until {limit.paused_until.isoformat(timespec='seconds')}"
    holders = [
        f"{holder.label or holder.command} (pid {holder.pid}, since {holder.acquired_at.isoformat(timespec='seconds')})"
        for holder in read_holders(name)
    ]
    if holders:
        more = ", and more" if len(holders) > MAX_NAMED_HOLDERS else ""
        text += f", held by {', '.join(holders[:MAX_NAMED_HOLDERS])}{more}"
    return text
