"""All constants of waiting, with their reasons."""

from __future__ import annotations

from typing import Final

# ---- looking without having been told --------------------------------------------------------------------------------

#: How often a waiter looks without a wakeup: where wakeups and watches work, and where they don't.
SLOW_POLL_SECONDS: Final = 0.8
QUICK_POLL_SECONDS: Final = 0.05

#: With this many processes in front, a waiter leaves the looking to them, and looks this many times less often.
FAR_BEHIND: Final = 8
FAR_BEHIND_FACTOR: Final = 6

#: A waiter that has not acted this long after its slots had drained is stopped: others act for it.
OVERDUE_SECONDS: Final = 0.02

#: Most waits are shorter than this; only longer ones are worth watching the lives of the processes in front. A death
#: that came before is noticed then, within a tenth of a second.
WATCH_AFTER_SECONDS: Final = 0.07

#: A wait that lasts this long is reported, at the level INFO.
REPORTS_SECONDS: Final = (10.0, 60.0, 600.0, 3_600.0)

# ---- sleeping --------------------------------------------------------------------------------------------------------

#: The last stretch before a moment is slept through exactly, because poll() counts whole milliseconds. For a moment far
#: away, this is not worth a second wake-up.
EXACT_SLEEP_SECONDS: Final = 0.002
MAX_EXACT_SECONDS: Final = 0.05

# ---- a busy store ----------------------------------------------------------------------------------------------------

#: Pauses between attempts on a store that another process is writing to: it is done in tens of microseconds. They grow
#: with the time that the store has been busy, because a hundred processes that want it must not keep the processors
#: from the one that has it; but slowly, because a newcomer would overtake a process that sleeps.
MIN_BACKOFF_SECONDS: Final = 0.00005
BACKOFF_GROWTH: Final = 1.5
MAX_BACKOFF_SECONDS: Final = 0.0005
MAX_BACKOFF_SHARE: Final = 1 / 16
MAX_BACKOFF_HELD_UP_SECONDS: Final = 0.01

#: A time-out shorter than this still waits this long for the store itself, which is busy for microseconds at a time.
STORE_PATIENCE_SECONDS: Final = 0.05

#: How long a call without a time-out of its own (setting a limit, or trying once) waits for the store.
STORE_TIMEOUT_SECONDS: Final = 10.0

#: How long the exit of a block waits for a store that is held up, before the release goes on in the background.
RELEASE_PATIENCE_SECONDS: Final = 5.0

#: How many attempts an exit makes without a pause between; more would cost waiters more than it gains.
QUICK_RELEASES: Final = 2

#: How often one call rebuilds a store that is found damaged again and again.
MAX_REBUILDS: Final = 2

#: After this long, a waiter looks whether the holder is the process or the task that started it.
PARENT_AFTER_SECONDS: Final = 1.0

#: Of many that begin to wait at the same time, one looks.
PARENT_EVERY_SECONDS: Final = 0.1


def poll_seconds(is_told: bool, owners_ahead: int) -> float:
    """Return how long a waiter sleeps at most without a wakeup, before it looks at the store.

    Only the nearest waiters look often: those behind them would tell nobody anything new.

    Args:
        is_told: whether wakeups and deaths reach the waiter by themselves.
        owners_ahead: how many processes are queued in front.
    """
    if owners_ahead >= FAR_BEHIND:
        return SLOW_POLL_SECONDS * FAR_BEHIND_FACTOR
    return SLOW_POLL_SECONDS if is_told else QUICK_POLL_SECONDS
