"""What a timeline says in words: who held others up, and the figures of each limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine.core.history import percentiles
from localconc.cli.output.text import duration_text, rate_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc.cli.output.timeline.model import Caller, Group, HoldUp, Timeline

#: Shorter waits are the time that an acquisition takes.
MIN_WAIT_SECONDS = 0.001

#: A name in a sentence has at most this many letters.
MAX_NAME = 60


def headline(timeline: Timeline, mark: Callable[[str], str] = str) -> str:
    """Say in a sentence who held others up most; `mark` sets names off from the sentence."""
    if timeline.hold_ups:
        worst = timeline.hold_ups[0]
        group = timeline.groups[worst.group]
        name = mark(_name(timeline, worst.caller))
        return (
            f"{name} held others up most: requests waited {duration_text(worst.caused_seconds)} because of "
            f"it, of {duration_text(group.waited_seconds)} in all for {mark(group.name)}."
        )
    if timeline.waited_seconds >= MIN_WAIT_SECONDS:
        return f"No holder stands out: requests waited {duration_text(timeline.waited_seconds)} in all."
    return "No request had to wait."


def limit_text(group: Group) -> str:
    """The limit in a few words: `limit 3`, `limit 10, 5/second drain`, `deleted`."""
    if group.limit is None:
        return "deleted"
    drain = f", {rate_text(group.slot_decay_per_second)} drain" if group.slot_decay_per_second else ""
    return f"limit {group.limit}{drain}"


def facts(group: Group) -> list[str]:
    """The figures of one limit."""
    acquired = [bar for bar in group.bars if bar.acquired_at is not None]
    waits = [bar.waited_seconds for bar in acquired]
    waited = sum(wait >= MIN_WAIT_SECONDS for wait in waits)
    words = [f"{len(acquired):,} acquisition{'' if len(acquired) == 1 else 's'}"]
    spread = percentiles(waits)
    if waited and spread is not None:
        words.append(f"{waited:,} waited: median {duration_text(spread.p50)}, longest {duration_text(spread.max)}")
    killed = sum(bar.ending == "killed" for bar in acquired)
    if killed:
        words.append(f"{killed} killed")
    waiting = len(group.bars) - len(acquired)
    if waiting:
        words.append(f"{waiting} waiting now")
    return words


def victims_text(timeline: Timeline, hold_up: HoldUp, mark: Callable[[str], str] = str, most: int = 3) -> str:
    """Whom a holder held up, the longest wait first."""
    parts = [
        f"{mark(_name(timeline, caller))} by {duration_text(seconds)}" for caller, seconds in hold_up.victims[:most]
    ]
    more = len(hold_up.victims) - most
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _name(timeline: Timeline, caller: Caller) -> str:
    return middle_shortened(timeline.names[caller], MAX_NAME)


def middle_shortened(text: str, most: int) -> str:
    """Shorten a text to this many letters, in the middle: both ends of a command tell it from others."""
    if len(text) <= most:
        return text
    if most < 5:
        return text[: max(most, 0)]
    end = most // 2
    return f"{text[: most - 1 - end].rstrip()}…{text[-end:].lstrip()}"
