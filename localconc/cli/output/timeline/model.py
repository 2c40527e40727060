"""Who waited and who held, when: the model that every picture of the history draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from localconc.cli.output.text import literal
from localconc.cli.output.timeline.curves import Curve, Load, draining
from localconc.cli.output.timeline.lanes import Lane, distinct_names, lanes_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from localconc._engine.core.history import Acquisition, Ending
    from localconc._engine.core.views import Limit, Waiter

#: More would not be read.
MAX_HOLD_UPS = 5

#: Waiting shorter than this holds nobody up.
MIN_CAUSED_SECONDS = 0.001

#: This share of the window is left for the sign of an end that was not seen.
UNSEEN_SHARE = 0.04

#: A bar stands out if it caused this share of all the waiting for its limit. Among many bars, so does one that caused
#: this many times the average and half as much as the worst one.
NOTABLE_SHARE = 0.1
NOTABLE_MULTIPLE = 5


class Caller(NamedTuple):
    """The thread or task of a process that waits or holds. Its texts have no control or bidirectional characters."""

    pid: int
    thread: str
    label: str
    command: str


@dataclass(slots=True)
class Bar:
    """One request: its wait, then its hold. Moments are in seconds since 1970.

    Attributes:
        caller: the process, thread and label.
        slots: how many slots it acquired, or waits for.
        numbers: its slot numbers, if it asked for them.
        waiting_since: when it began to wait.
        acquired_at: when it was admitted; None while it waits.
        hold_end: end of what is drawn as held. That is the release, the present while it holds, and the moment of
            admission if nothing is known or there is nothing to release.
        admitted_or_now: end of its wait.
        ending: as in `Acquisition`, or `"waiting"`.
        caused_seconds: how long others waited because of it.
    """

    caller: Caller
    slots: int
    numbers: tuple[int, ...]
    waiting_since: float
    acquired_at: float | None
    hold_end: float
    admitted_or_now: float
    ending: Ending | Literal["waiting"]
    caused_seconds: float = 0.0

    @property
    def waited_seconds(self) -> float:
        """How long it waited, so far."""
        return self.admitted_or_now - self.waiting_since

    @property
    def held_seconds(self) -> float:
        """How long it held, so far."""
        return self.hold_end - self.admitted_or_now


@dataclass
class Group:
    """What happened to one limit.

    `limit` is None for a limit that was deleted.
    """

    name: str
    limit: int | None
    slot_decay_per_second: float
    bars: list[Bar]
    lanes: list[Lane]
    load: Load
    used: Curve
    waiting: Curve
    waited_seconds: float

    @cached_property
    def notable_seconds(self) -> float:
        """A bar that caused this much waiting stands out."""
        caused = [bar.caused_seconds for bar in self.bars]
        outlier = max(max(caused) / 2, sum(caused) / len(caused) * NOTABLE_MULTIPLE)
        return max(min(self.waited_seconds * NOTABLE_SHARE, outlier), 1e-6)


class HoldUp(NamedTuple):
    """A caller that others waited for: how long in all, its bar that caused the most of it, and the others.

    `group` is the number of the limit's group; `victims` are the callers that waited, the longest first.
    """

    group: int
    caller: Caller
    caused_seconds: float
    worst: Bar
    victims: list[tuple[Caller, float]]


@dataclass
class Timeline:
    """What happened to some limits from `since` to `until`, the limit with the longest waits first.

    `until` is the present, unless `ends_before_now`.
    """

    since: float
    until: float
    ends_before_now: bool
    groups: list[Group]
    hold_ups: list[HoldUp] = field(default_factory=list)

    @cached_property
    def names(self) -> dict[Caller, str]:
        """What to call each caller in a sentence; no two are called the same."""
        return distinct_names({bar.caller: None for group in self.groups for bar in group.bars})

    @property
    def bars(self) -> int:
        """How many bars there are."""
        return sum(len(group.bars) for group in self.groups)

    @property
    def waited_seconds(self) -> float:
        """How long all requests waited, together."""
        return sum(group.waited_seconds for group in self.groups)


def timeline_of(
    acquisitions: Iterable[Acquisition],
    *,
    until: float,
    since: float | None = None,
    limits: Iterable[Limit] = (),
    waiters: Iterable[Waiter] = (),
    only: Collection[str] | None = None,
) -> Timeline:
    """Arrange acquisitions, and the requests that wait now, in groups and lanes.

    Args:
        acquisitions: what the history has.
        until: now, in seconds since 1970; bars of what is still held or waited for end there.
        since: begin of a window that ends now. None begins it with the first bar, and ends it with the last one
            unless that lasts until now: a picture of what is long over would show nothing else than that.
        limits: as they are now.
        waiters: requests that wait now.
        only: names of the limits whose waiters to show; None for all.
    """
    known = {limit.name: limit for limit in limits}
    bars: dict[str, list[Bar]] = {}
    for acquisition in acquisitions:
        bars.setdefault(acquisition.name, []).append(_acquired(acquisition, until))
    for waiter in waiters:
        for name in waiter.names:
            if only is None or name in only:
                bars.setdefault(name, []).append(_waiting(waiter, until))
    groups = [_group(name, found, known.get(name), until) for name, found in bars.items()]
    groups.sort(key=lambda group: (-group.waited_seconds, group.name))
    if since is not None or not groups:
        return Timeline(until if since is None else min(since, until), until, False, groups, _hold_ups(groups))
    first = min(group.bars[0].waiting_since for group in groups)
    last = max(map(_end, groups))
    if any(bar.ending == "unseen" for group in groups for bar in group.bars):
        last += (last - first) * UNSEEN_SHARE
    last = min(last, until)
    return Timeline(first, last, last < until, groups, _hold_ups(groups))


def _end(group: Group) -> float:
    """Return when the last bar ends, and the slots that drain have drained."""
    drained = group.used.points[-1][0] if group.used.points else 0.0
    return max(drained, *(bar.hold_end for bar in group.bars))


def _acquired(acquisition: Acquisition, until: float) -> Bar:
    acquired = acquisition.acquired_at.timestamp()
    if acquisition.released_at is not None:
        end = acquisition.released_at.timestamp()
    else:
        end = until if acquisition.ending == "held" else acquired
    return Bar(
        caller=_caller(acquisition),
        slots=acquisition.slots,
        numbers=acquisition.numbers,
        waiting_since=acquired - max(acquisition.waited_seconds, 0.0),
        acquired_at=acquired,
        hold_end=max(end, acquired),
        admitted_or_now=acquired,
        ending=acquisition.ending,
    )


def _waiting(waiter: Waiter, until: float) -> Bar:
    since = min(waiter.waiting_since.timestamp(), until)
    return Bar(_caller(waiter), waiter.slots, (), since, None, until, until, "waiting")


def _caller(source: Acquisition | Waiter) -> Caller:
    # A waiter has a label only in a version that keeps labels of waiting requests.
    label = getattr(source, "label", "")
    return Caller(source.pid, shown(source.thread), shown(label), shown(source.command))


@lru_cache(maxsize=1024)
def shown(text: str) -> str:
    """A text as it may stand in a picture: control and bidirectional characters are written out."""
    return literal(text)


def _group(name: str, bars: list[Bar], limit: Limit | None, until: float) -> Group:
    bars.sort(key=lambda bar: (bar.waiting_since, bar.admitted_or_now))
    load = Load(bars)
    decay = limit.slot_decay_per_second if limit else 0.0
    if decay == 0:
        for bar in bars:
            bar.caused_seconds = load.caused_seconds(bar)
    return Group(
        name=shown(name),
        limit=limit.limit if limit else None,
        slot_decay_per_second=decay,
        bars=bars,
        lanes=lanes_of(bars),
        load=load,
        used=draining(bars, decay, until) if decay else load.used(limit.limit if limit else None),
        waiting=load.waiting(),
        waited_seconds=sum(bar.waited_seconds for bar in bars),
    )


def _hold_ups(groups: Sequence[Group]) -> list[HoldUp]:
    """Find the callers that caused the most waiting. A hundredth of what the worst one caused is not worth a line."""
    caused: dict[tuple[int, Caller], float] = {}
    for number, group in enumerate(groups):
        for bar in group.bars:
            if bar.caused_seconds > 0:
                key = (number, bar.caller)
                caused[key] = caused.get(key, 0.0) + bar.caused_seconds
    worst = sorted(caused, key=lambda key: -caused[key])[:MAX_HOLD_UPS]
    least = max(caused[worst[0]] / 100, MIN_CAUSED_SECONDS) if worst else 0.0
    return [_hold_up(groups, *key, caused[key]) for key in worst if caused[key] >= least]


def _hold_up(groups: Sequence[Group], number: int, caller: Caller, caused: float) -> HoldUp:
    group = groups[number]
    own = [bar for bar in group.bars if bar.caller == caller]
    waits = [bar for bar in group.bars if bar.caller != caller and bar.waited_seconds > 0]
    suffered: dict[Caller, float] = {}
    for bar, seconds in zip(waits, group.load.suffered_seconds(own, waits), strict=True):
        if seconds > 0:
            suffered[bar.caller] = suffered.get(bar.caller, 0.0) + seconds
    return HoldUp(
        group=number,
        caller=caller,
        caused_seconds=caused,
        worst=max(own, key=lambda bar: bar.caused_seconds),
        victims=sorted(suffered.items(), key=lambda entry: -entry[1]),
    )
