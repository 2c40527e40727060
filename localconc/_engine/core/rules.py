"""The arithmetic of limits: decay, room, estimates. Pure functions of numbers; nothing here reads a clock.

A limit with decay is kept as one moment, `empty_at`: when its last occupied slot will have drained. What is
occupied at `now` is `(empty_at - now) * decay`, so fractions are never rounded away and nothing needs updating
while time passes. This is the generic cell rate algorithm (ITU-T I.371), with `empty_at` as its theoretical
arrival time and slots as its cells.
"""

from __future__ import annotations

import math

#: Rounding noise of the floating-point clock, in slots: far below any slot, far above the noise.
TOLERANCE_SLOTS = 1e-6

#: The longest pause of a limit: 30 days.
MAX_PAUSE_SECONDS = 30 * 86_400.0

#: As in Prefect: where the average starts, the least a release counts, and how many limits' worth of releases weigh in.
INITIAL_AVERAGE_OCCUPANCY_SECONDS = 2.0
MINIMUM_OCCUPANCY_SECONDS_PER_SLOT = 0.1
OCCUPANCY_SAMPLES_MULTIPLIER = 2


def occupied_slots(empty_at: float, now: float, slot_decay_per_second: float) -> float:
    """Slots of a decaying limit that have not drained yet."""
    return max(0.0, empty_at - now) * slot_decay_per_second


def fits(occupied: float, occupy: int, limit: int) -> bool:
    """Whether `occupy` more slots fit beside those occupied."""
    return occupied + occupy <= limit + TOLERANCE_SLOTS


def empty_at_after(empty_at: float, now: float, occupy: int, slot_decay_per_second: float) -> float:
    """When the limit will be empty once `occupy` more slots are taken at `now`."""
    return max(empty_at, now) + occupy / slot_decay_per_second


def fits_at(empty_at: float, occupy: int, limit: int, slot_decay_per_second: float) -> float:
    """The first moment at which `occupy` slots fit a decaying limit, if nobody takes or gives back any."""
    return empty_at - (limit - occupy) / slot_decay_per_second


def undrained_seconds(drained_at: float, now: float, slots: int, slot_decay_per_second: float) -> float:
    """How much earlier the limit is empty when this holder gives back what has not drained of its slots."""
    return min(max(0.0, drained_at - now), slots / slot_decay_per_second)


def rescaled(moment: float, now: float, old_decay: float, new_decay: float) -> float:
    """The moment at which the slots that would have drained by `moment` do so at a new decay."""
    return now + max(0.0, moment - now) * old_decay / new_decay


def empty_at_after_reboot(empty_at_wall: float, wall: float, now: float, limit: int, decay: float) -> float:
    """`empty_at` on the new boot's clock, from the wall clock; no more than a full limit, whatever the clocks say."""
    return now + min(max(0.0, empty_at_wall - wall), limit / decay)


def displayed(slots: float) -> int:
    """A level in whole slots, as people see it: a slot that has not drained wholly is still occupied."""
    return max(0, math.ceil(slots - TOLERANCE_SLOTS))


def denied_slots(denied: float, denied_at: float, now: float, decay: float, average_seconds: float) -> float:
    """Refused slots still counted: they drain at the limit's decay, else one each average occupancy (Prefect)."""
    rate = decay if decay > 0 else 1.0 / average_seconds
    return max(0.0, denied - max(0.0, now - denied_at) * rate)


def blocking_slots(occupy: int, denied: float, limit: int, decay: float) -> float:
    """How much stands before a request on one limit, in units of its waiting time for a slot (as in Prefect)."""
    return occupy + denied if decay > 0 else (occupy + denied) / max(limit, 1)


def seconds_per_slot(decay: float, average_seconds: float) -> float:
    """How long one blocking slot takes to come free (as in Prefect)."""
    return 1.0 / decay if decay > 0 else average_seconds
