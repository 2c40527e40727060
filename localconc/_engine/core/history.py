"""Past acquisitions as callers read them, with the figures that sum them up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from localconc._engine.core.calls import Mode
from localconc._engine.core.display import moment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pendulum import DateTime

#: How an acquisition ended: its holder still holds it, released it, was killed while it held it, or ended while no
#: process watched. A call of `rate_limit` takes its slots at an instant and does not end.
Ending = Literal["held", "released", "killed", "unseen", "instant"]


@dataclass(frozen=True, slots=True)
class Acquisition:
    """Slots of one limit that a call acquired, as the history keeps them.

    >>> [acquisition] = localconc.read_history("database", newest=1)
    >>> f"pid {acquisition.pid} waited {acquisition.waited_seconds:.1f} s"
    'pid 4123 waited 0.4 s'

    Attributes:
        name: name of the limit.
        slots: how many slots the call acquired.
        numbers: the slot numbers that the holder asked for; `()` if it did not ask.
        pid: the process.
        thread: name of the thread or task.
        command: command line of the process.
        label: the `label=` of the call; "" without one.
        waited_seconds: how long the call waited before it was admitted.
        acquired_at: when it was admitted (UTC).
        released_at: when the slots were released (UTC). None while they are held, for `rate_limit`, and if no
            process saw the end.
        mode: `"concurrency"` or `"rate_limit"`.
        ending: `"held"` while the slots are held, then `"released"`, `"killed"` or `"unseen"`; `"instant"` for
            `rate_limit`.
    """

    name: str
    slots: int
    numbers: tuple[int, ...]
    pid: int
    thread: str
    command: str
    label: str
    waited_seconds: float
    acquired_at: DateTime
    released_at: DateTime | None
    mode: Mode
    ending: Ending = "released"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How a set of durations is spread, in seconds. Each figure is a duration that occurred (nearest rank).

    Attributes:
        p50: the median.
        p90: nine in ten lasted no longer.
        p99: ninety-nine in a hundred lasted no longer.
        max: the longest.
    """

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """How a limit was used in a window of time.

    >>> localconc.read_statistics("database").waited_seconds.p99
    2.4

    Attributes:
        name: name of the limit.
        since: begin of the window (UTC).
        until: end of the window (UTC).
        acquisitions: how many calls were admitted, or still held slots, within the window.
        refusals: how many calls were refused or gave up within the window; a call counts once, however often it
            retried.
        waited_seconds: how long the admitted calls waited; None if there were none.
        held_seconds: how long slots were held, for the holds that ended within the window; None if none did.
        utilization: share of the limit that was in use: slot-seconds held / (limit · seconds). None for a limit
            with decay, a limit of 0, and an empty window.
    """

    name: str
    since: DateTime
    until: DateTime
    acquisitions: int
    refusals: int
    waited_seconds: Percentiles | None
    held_seconds: Percentiles | None
    utilization: float | None


class AcquisitionRow(NamedTuple):
    """An acquisition in plain values, its moments in seconds since 1970 on the wall clock."""

    name: str
    slots: int
    numbers: tuple[int, ...]
    pid: int
    thread: str
    command: str
    label: str
    waited_seconds: float
    acquired: float
    released: float | None
    mode: Mode
    ending: Ending


class Hold(NamedTuple):
    """The part of an acquisition that the figures need.

    `released` is `math.inf` while the slots are held. It is None for `rate_limit`, and if no process saw the end; such
    an acquisition counts at the moment at which it was made.
    """

    waited_seconds: float
    acquired: float
    released: float | None
    slots: int


def acquisitions_of(rows: Iterable[AcquisitionRow]) -> list[Acquisition]:
    """Turn rows into what callers read, in the same order."""
    return [
        Acquisition(
            *row[:7], float(row[7]), moment(row[8]), None if row[9] is None else moment(row[9]), row[10], row[11]
        )
        for row in rows
    ]


def statistics_of(
    name: str,
    holds: Iterable[Hold],
    *,
    limit: int,
    slot_decay_per_second: float,
    since: float | None,
    until: float,
    refusals: int,
) -> Statistics:
    """Sum up how a limit was used from `since` to `until`, both in seconds since 1970.

    Args:
        name: name of the limit.
        holds: its acquisitions, in any order. Those outside of the window are left out.
        limit: its slots.
        slot_decay_per_second: its decay; 0 for none.
        since: begin of the window; None begins it at the first acquisition. If the history no longer reaches that
            far back, pass the moment to which it does: idle time that was never recorded would lower the utilization.
        until: end of the window.
        refusals: calls that were refused or gave up within the window.
    """
    known = list(holds)
    if since is None:
        since = min((hold[1] for hold in known), default=until)
    seen = [hold for hold in known if hold[1] <= until and (hold[1] if hold[2] is None else hold[2]) >= since]
    return Statistics(
        name=name,
        since=moment(since),
        until=moment(until),
        acquisitions=len(seen),
        refusals=refusals,
        waited_seconds=percentiles([hold[0] for hold in seen]),
        held_seconds=percentiles([hold[2] - hold[1] for hold in seen if hold[2] is not None and hold[2] <= until]),
        utilization=None if slot_decay_per_second > 0 else _utilization(seen, limit, since, until),
    )


def percentiles(durations: list[float]) -> Percentiles | None:
    """Return how durations are spread; None if there are none."""
    if not durations:
        return None
    # A duration is negative if the wall clock was set back in the meantime; it counts as 0.
    ordered = sorted(float(max(duration, 0.0)) for duration in durations)  # 0 for a holder that did not wait
    ranks = (math.ceil(len(ordered) * hundredths / 100) - 1 for hundredths in (50, 90, 99, 100))
    return Percentiles(*(ordered[rank] for rank in ranks))


def _utilization(holds: list[Hold], limit: int, since: float, until: float) -> float | None:
    if limit <= 0 or until <= since:
        return None
    slot_seconds = sum(
        slots * max(min(released, until) - max(acquired, since), 0.0)
        for _, acquired, released, slots in holds
        if released is not None
    )
    return slot_seconds / (limit * (until - since))
