"""Times of waiting, each with its reason."""

from __future__ import annotations

from typing import Final

# ---- polling ---------------------------------------------------------------------------------------------------------

#: How often a waiter polls the store: where wakeups and watches work, and where they don't.
SLOW_POLL_SECONDS: Final = 0.8
QUICK_POLL_SECONDS: Final = 0.05

#: With more waiting threads in a process than this, each polls less often, because each poll is for all of them. All of
#: them together poll as often as this many.
MAX_POLLERS: Final = 8

#: A loop polls for its own tasks only. So it polls less often beside others of its process, but beside more of them
#: than this, as often as beside this many.
MAX_WAITING_BESIDE: Final = 48

#: With each process in front, a waiter polls less often by this part, because those in front poll, too.
BEHIND_PART: Final = 0.5

#: With this many processes in front, a waiter leaves more to them. It polls less often by this factor at most.
FAR_BEHIND: Final = 8
FAR_BEHIND_FACTOR: Final = 8

#: If a waiter has not acted this long after its slots had drained, it is stopped, and others act for it.
OVERDUE_SECONDS: Final = 0.02

#: Most waits are shorter than this. Only in a longer one does a waiter watch the processes in front. It then notices
#: earlier deaths, too, within a tenth of a second.
WATCH_AFTER_SECONDS: Final = 0.07

#: A call logs that it still waits after each of these times, at the level INFO.
REPORTS_SECONDS: Final = (10.0, 60.0, 600.0, 3_600.0)

# ---- sleeping --------------------------------------------------------------------------------------------------------

#: poll() counts whole milliseconds, so a thread sleeps the last stretch before a moment in another way. Before a moment
#: that is far away, it does not, because that costs a second wake-up.
EXACT_SLEEP_SECONDS: Final = 0.002
MAX_EXACT_SECONDS: Final = 0.05

# ---- a busy store ----------------------------------------------------------------------------------------------------

#: Pauses between attempts on a store that another process is writing to, which takes it tens of microseconds. They grow
#: with the time that the store has been busy, because a hundred processes that try must not keep the processors from
#: the one that writes. They grow slowly, because other processes would overtake one that sleeps for long.
MIN_BACKOFF_SECONDS: Final = 0.00005
BACKOFF_GROWTH: Final = 1.5
MAX_BACKOFF_SECONDS: Final = 0.0005
MAX_BACKOFF_SHARE: Final = 1 / 16
MAX_BACKOFF_HELD_UP_SECONDS: Final = 0.01

#: With more calls of a process that retry than this, each pauses longer, so that they don't fill a processor while
#: another process is stopped inside the store's lock.
MAX_RETRYING: Final = 8

#: A call with a shorter time-out still waits this long for the store itself, which is busy for microseconds at a time.
STORE_PATIENCE_SECONDS: Final = 0.05

#: How long a call without a time-out of its own (setting a limit, or trying once) waits for the store.
STORE_TIMEOUT_SECONDS: Final = 10.0

#: How long the exit of a block waits for a busy store, before the background goes on with the release.
RELEASE_PATIENCE_SECONDS: Final = 5.0

#: How many attempts an exit makes without a pause, and a thread that is to be queued. More would slow waiters down.
QUICK_TRIES: Final = 2

#: How often one call rebuilds a store that turns out damaged again and again.
MAX_REBUILDS: Final = 2


def poll_seconds(gets_wakeups: bool, sees_deaths: bool, owners_ahead: int = 0, waiting_threads: int = 1) -> float:
    """Return how long a waiter sleeps at most before it polls the store.

    Only the nearest waiters poll often, because those behind them would find out nothing more. But where no other
    process can tell a waiter of its grant, those behind have to find that out.

    Args:
        gets_wakeups: whether wakeups of other processes reach the waiter.
        sees_deaths: whether news of every death that concerns it do.
        owners_ahead: how many processes are queued in front.
        waiting_threads: how many threads of this process wait.
    """
    crowd = max(1.0, waiting_threads / MAX_POLLERS)
    if not gets_wakeups:
        return min(SLOW_POLL_SECONDS, QUICK_POLL_SECONDS * max(crowd, owners_ahead / FAR_BEHIND))
    if not sees_deaths and owners_ahead < FAR_BEHIND:
        return min(SLOW_POLL_SECONDS, QUICK_POLL_SECONDS * crowd)
    return SLOW_POLL_SECONDS * max(min(FAR_BEHIND_FACTOR, 1 + BEHIND_PART * owners_ahead), crowd)
