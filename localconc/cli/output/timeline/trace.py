"""The timeline as a trace for Perfetto (ui.perfetto.dev) and Chrome's chrome://tracing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localconc.cli.output.timeline.curves import Curve
    from localconc.cli.output.timeline.model import Bar, Group, Timeline

_MICRO = 1e6

#: How far a release may be from the admission that it made room for.
_HANDOFF_SECONDS = 0.001

Event = dict[str, Any]


def timeline_trace(timeline: Timeline) -> str:
    """Write a timeline as JSON in the Trace Event Format.

    Each limit is a process of the trace, with its counters, and each lane a thread of it: holds of one thread that
    overlap, which the format does not allow on one track, stand on several. An arrow leads from the release that made
    room to the hold that took it.
    """
    events = [event for number, group in enumerate(timeline.groups, 1) for event in _group(group, number)]
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events}, separators=(",", ":")) + "\n"


def _group(group: Group, process: int) -> Iterator[Event]:
    yield _named("process_name", process, 0, group.name)
    yield {"ph": "M", "name": "process_sort_index", "pid": process, "tid": 0, "args": {"sort_index": process}}
    yield from _counter("slots in use", group.used, process)
    yield from _counter("waiting at once", group.waiting, process)
    tracks: dict[int, int] = {}
    for track, lane in enumerate(group.lanes, 1):
        title = " · ".join(part for part in (lane.title, lane.detail) if part)
        yield _named("thread_name", process, track, title or "(more of the same)")
        yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": track, "args": {"sort_index": track}}
        for bar in lane.bars:
            tracks[id(bar)] = track
            yield from _slices(bar, process, track)
    yield from _arrows(group, process, tracks)


def _named(kind: str, process: int, track: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": process, "tid": track, "args": {"name": name}}


def _counter(name: str, curve: Curve, process: int) -> Iterator[Event]:
    for moment, figure in curve.points:
        yield {"ph": "C", "name": name, "pid": process, "ts": _micros(moment), "args": {name: round(figure, 3)}}


def _slices(bar: Bar, process: int, track: int) -> Iterator[Event]:
    told = {
        "pid": bar.caller.pid,
        "thread": bar.caller.thread,
        "label": bar.caller.label,
        "command": bar.caller.command,
        "slots": bar.slots,
        "ending": bar.ending,
    }
    common = {"ph": "X", "pid": process, "tid": track, "args": told}
    if bar.waited_seconds > 0:
        begin, seconds = bar.waiting_since, bar.waited_seconds
        yield {**common, "name": "waiting", "cat": "wait", "ts": _micros(begin), "dur": _length(seconds)}
    if bar.acquired_at is None:
        return
    begin = _micros(bar.acquired_at)
    if bar.ending == "instant":
        yield {"ph": "i", "s": "t", "name": "admitted", "cat": "rate", "pid": process, "tid": track, "ts": begin}
        return
    told["caused_seconds"] = round(bar.caused_seconds, 6)
    name = "holding" if bar.ending in ("held", "released") else f"holding ({bar.ending})"
    yield {**common, "name": name, "cat": "hold", "ts": begin, "dur": _length(bar.held_seconds)}


def _arrows(group: Group, process: int, tracks: dict[int, int]) -> Iterator[Event]:
    """Lead from each release to the waiting request that it let in, if it is plain which one that was."""
    releases = sorted((bar for bar in group.bars if bar.ending in ("released", "killed")), key=lambda bar: bar.hold_end)
    place = 0
    for number, bar in enumerate(sorted(group.bars, key=lambda bar: bar.admitted_or_now)):
        if bar.acquired_at is None or bar.waited_seconds <= 0:
            continue
        while place < len(releases) and releases[place].hold_end < bar.acquired_at - _HANDOFF_SECONDS:
            place += 1
        if place == len(releases) or releases[place].hold_end > bar.acquired_at + _HANDOFF_SECONDS:
            continue
        release = releases[place]
        place += 1
        common = {"name": "let in", "cat": "let in", "id": process * 1_000_000 + number, "pid": process}
        # An arrow begins within the slice it leaves, so a microsecond before that slice ends.
        yield {**common, "ph": "s", "tid": tracks[id(release)], "ts": round(_micros(release.hold_end) - 1, 3)}
        yield {**common, "ph": "f", "bp": "e", "tid": tracks[id(bar)], "ts": _micros(bar.acquired_at)}


def _micros(moment: float) -> float:
    return round(moment * _MICRO, 3)


def _length(seconds: float) -> float:
    return round(seconds * _MICRO, 3)
