"""Slots in use, requests waiting, and the waiting that each holder caused, over time.

A wait is charged to those that held the limit meanwhile, each by its share of the slots in use. So what all holders
caused adds up to what all requests waited (while a slot was held), and a holder of one slot of ten for an hour, with
one request waiting, caused six minutes of it.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from localconc.cli.output.timeline.model import Bar


#: By how much a hold may seem to overlap the next one.
MAX_OVERLAP_SECONDS = 0.001


class Curve(NamedTuple):
    """A figure over time.

    `points` are moments with the figure from then on. Between them it is constant, or linear if it is not `stepped`.
    """

    points: list[tuple[float, float]]
    stepped: bool

    @property
    def peak(self) -> float:
        """The highest figure; 0 without any."""
        return max((figure for _, figure in self.points), default=0.0)


class Load:
    """How much of a limit its bars use, and how many of them wait, at every moment at which that changes."""

    def __init__(self, bars: Sequence[Bar]) -> None:
        used, waiting = _Changes(), _Changes()
        for bar in bars:
            waiting.add(bar.waiting_since, bar.admitted_or_now, 1)
            if bar.acquired_at is not None:
                used.add(bar.acquired_at, bar.hold_end, bar.slots)
        self._moments = sorted({*used, *waiting})
        self._place = {moment: place for place, moment in enumerate(self._moments)}
        self._used = self._levels(used)
        self._waiting = self._levels(waiting)
        self._caused_per_slot = self._integral(
            waiting / used if used > 0 else 0.0 for used, waiting in zip(self._used, self._waiting, strict=True)
        )

    def used(self, limit: int | None) -> Curve:
        """Slots in use."""
        levels = self._used if limit is None else self._without_overlaps(limit)
        return _stepped(self._moments, levels)

    def waiting(self) -> Curve:
        """Requests waiting at once."""
        return _stepped(self._moments, self._waiting)

    def caused_seconds(self, bar: Bar) -> float:
        """How long others waited because of this bar, all their waits together."""
        if bar.acquired_at is None:
            return 0.0
        begin, end = self._place[bar.acquired_at], self._place[bar.hold_end]
        return bar.slots * (self._caused_per_slot[end] - self._caused_per_slot[begin])

    def suffered_seconds(self, holding: Iterable[Bar], waiting: Iterable[Bar]) -> list[float]:
        """For each waiting bar, how much of its wait is charged to the holding ones."""
        held = _Changes()
        for bar in holding:
            if bar.acquired_at is not None:
                held.add(bar.acquired_at, bar.hold_end, bar.slots)
        share = self._integral(
            held / used if used > 0 else 0.0 for held, used in zip(self._levels(held), self._used, strict=True)
        )
        place = self._place
        return [share[place[bar.admitted_or_now]] - share[place[bar.waiting_since]] for bar in waiting]

    def _without_overlaps(self, limit: int) -> list[int]:
        """Leave out what seems to exceed the limit for less than a millisecond.

        A hand-off notes the release and the admission it makes room for at moments that differ by that little. A
        level that stays above the limit was there before the limit was lowered.
        """
        ends = [*self._moments[1:], float("inf")]
        return [
            min(used, limit) if end - moment < MAX_OVERLAP_SECONDS else used
            for used, moment, end in zip(self._used, self._moments, ends, strict=True)
        ]

    def _levels(self, changes: _Changes) -> list[int]:
        return list(accumulate(changes.get(moment, 0) for moment in self._moments))

    def _integral(self, figures: Iterable[float]) -> list[float]:
        widths = (later - earlier for earlier, later in pairwise(self._moments))
        return [0.0, *accumulate(width * figure for width, figure in zip(widths, figures, strict=False))]


class _Changes(dict[float, int]):
    """By how much a level changes, by moment."""

    def add(self, begin: float, end: float, amount: int) -> None:
        """Raise the level from one moment to another."""
        if end > begin:
            self[begin] = self.get(begin, 0) + amount
            self[end] = self.get(end, 0) - amount
        else:
            self.setdefault(begin, 0)
            self.setdefault(end, 0)


def _stepped(moments: Sequence[float], levels: Sequence[int]) -> Curve:
    points: list[tuple[float, float]] = []
    for moment, level in zip(moments, levels, strict=True):
        if not points or points[-1][1] != level:
            points.append((moment, level))
    return Curve(points, stepped=True)


def draining(bars: Sequence[Bar], slots_per_second: float, until: float) -> Curve:
    """Slots in use of a limit with decay: they jump up with each acquisition and drain from then on.

    What a release gives back early is what had not drained of its own slots yet. The store computes that from the
    level of the whole limit, which the history does not keep; the picture may be off by that much.
    """
    changes: list[tuple[float, float]] = []
    for bar in bars:
        if bar.acquired_at is None:
            continue
        changes.append((bar.acquired_at, float(bar.slots)))
        if bar.ending in ("released", "killed"):
            left = bar.slots - slots_per_second * (bar.hold_end - bar.acquired_at)
            if left > 0:
                changes.append((bar.hold_end, -left))
    points: list[tuple[float, float]] = []
    level, last = 0.0, 0.0
    for moment, change in sorted(changes):
        drained = level - slots_per_second * (moment - last)
        if drained <= 0 < level:
            points.append((last + level / slots_per_second, 0.0))
        before = max(drained, 0.0)
        level, last = max(before + change, 0.0), moment
        points += [(moment, before), (moment, level)]
    if points:
        empty = last + level / slots_per_second
        points.append((empty, 0.0) if empty <= until else (until, level - slots_per_second * (until - last)))
    return Curve(points, stepped=False)
