"""The arithmetic of limits: decay, room, estimates. Pure functions of numbers; nothing here reads a clock.

A limit with decay is kept as one moment, `empty_at`, at which its last occupied slot will have drained. At `now`,
`(empty_at - now) * decay` slots are occupied. So no fraction is ever rounded away, and nothing is updated while time
passes. This is the generic cell rate algorithm (ITU-T I.371): `empty_at` is its theoretical arrival time, and slots are
its cells.
"""

from __future__ import annotations

import math

#: Rounding noise of the floating-point clock, in slots: far below any slot, far above the noise.
TOLERANCE_SLOTS = 1e-6

#: The longest pause of a limit: 30 days.
MAX_PAUSE_SECONDS = 30 * 86_400.0

#: As in Prefect: the first average, the shortest time that a release counts as, and how slowly the average moves.
INITIAL_AVERAGE_OCCUPANCY_SECONDS = 2.0
MINIMUM_OCCUPANCY_SECONDS_PER_SLOT = 0.1
OCCUPANCY_SAMPLES_MULTIPLIER = 2


def occupied_slots(empty_at: float, now: float, slot_decay_per_second: float) -> float:
    """Return the slots of a decaying limit that have not drained yet."""
    return max(0.0, empty_at - now) * slot_decay_per_second


def fits(occupied: float, occupy: int, limit: int) -> bool:
    """Return whether `occupy` more slots fit beside the occupied ones."""
    return occupied + occupy <= limit + TOLERANCE_SLOTS


def empty_at_after(empty_at: float, now: float, occupy: int, slot_decay_per_second: float) -> float:
    """Return when a limit will be empty if a caller acquires `occupy` more slots at `now`."""
    return max(empty_at, now) + occupy / slot_decay_per_second


def fits_at(empty_at: float, occupy: int, limit: int, slot_decay_per_second: float) -> float:
    """Return the first moment at which `occupy` slots fit a decaying limit, if no other caller acquires or releases."""
    return empty_at - (limit - occupy) / slot_decay_per_second


def undrained_seconds(drained_at: float, now: float, slots: int, slot_decay_per_second: float) -> float:
    """Return how much earlier a limit is empty if a holder releases those of its slots that have not drained."""
    return min(max(0.0, drained_at - now), slots / slot_decay_per_second)


def rescaled(moment: float, now: float, old_decay: float, new_decay: float) -> float:
    """Return when the slots that would have drained by `moment` have drained at a new decay."""
    return now + max(0.0, moment - now) * old_decay / new_decay


def empty_at_after_reboot(empty_at_wall: float, wall: float, now: float, limit: int, decay: float) -> float:
    """Return `empty_at` on the clock of a new boot, by the wall clock, but no later than for a full limit."""
    return now + min(max(0.0, empty_at_wall - wall), limit / decay)


def displayed(slots: float) -> int:
    """Return a level in whole slots, as people see it: a slot that has partly drained is still occupied."""
    return max(0, math.ceil(slots - TOLERANCE_SLOTS))


def denied_slots(denied: float, denied_at: float, now: float, decay: float, average_seconds: float) -> float:
    """Return the refused slots that still count: they drain at the decay, else one each average occupancy (Prefect)."""
    rate = decay if decay > 0 else 1.0 / average_seconds
    return max(0.0, denied - max(0.0, now - denied_at) * rate)


def blocking_slots(occupy: int, denied: float, limit: int, decay: float) -> float:
    """Return how many slots have to come free before a request is admitted, as Prefect estimates it."""
    return occupy + denied if decay > 0 else (occupy + denied) / max(limit, 1)


def seconds_per_slot(decay: float, average_seconds: float) -> float:
    """Return how long one blocking slot takes to come free, as Prefect estimates it."""
    return 1.0 / decay if decay > 0 else average_seconds
