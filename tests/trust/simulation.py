"""Several processes as one deterministic run: a seeded scheduler interleaves them at their transactions.

Each process is an engine of its own on one home. It lives by a clock that only the scheduler moves, and its steps are
the pauses of `acquiring`: between two of them lies at most one transaction of each kind. A crash closes the owner's
file and drops the engine; a stop is a process that the scheduler passes over; signals reach nobody at all.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

from localconc._engine import acquiring, administration
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, Request
from localconc._engine.engine import Engine
from localconc._engine.homes.home import DATABASE_NAME
from localconc._engine.occupancy import Occupancy
from localconc._engine.waiting.mailboxes.mailbox import Mailbox
from localconc.errors import LocalconcError

from .inspection import assert_sound

STEADY = ("one", "two")
RATE = "rate"
RATE_LIMIT_SLOTS, RATE_DECAY = 2, 5.0


class VirtualClock:
    """Time that only the scheduler moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return 1_700_000_000.0 + self.time

    def boot_identity(self) -> str:
        return "simulated"

    def pause(self, mailbox: Mailbox, until: float | None, watched_fd: int | None) -> None:
        raise AssertionError("the scheduler pauses, nobody else")

    async def pause_task(self, arrival: Any, until: float | None) -> None:
        raise AssertionError("the scheduler pauses, nobody else")


class DeafMailbox(Mailbox):
    """Receives nothing: every signal is lost, so that all rests on the store."""

    def __init__(self, directory: Path) -> None:
        self.address = "localconc-deaf"


class Process:
    """One simulated process: what it is in the middle of, and what it holds."""

    def __init__(self, home: Path, clock: VirtualClock) -> None:
        self.engine = Engine(home, clock, DeafMailbox)
        self.steps: Generator[Any, None, Any] | None = None
        self.occupancy: Occupancy | None = None
        self.stopped_until = 0.0
        self.sleeps_until = 0.0

    def begin(self, request: Request, timeout_seconds: float | None) -> None:
        self.steps = acquiring.acquire(
            self.engine,
            request,
            "simulated",
            timeout_seconds,
            None,
            lambda: DeafMailbox(self.engine.directory),
            polls=True,
        )

    def step(self) -> None:
        """Go on to the next pause."""
        assert self.steps is not None
        try:
            pause = next(self.steps)
        except StopIteration as end:
            self.steps = None
            if isinstance(end.value, Occupancy) and end.value.serial in self.engine.held:
                self.occupancy = end.value
        except LocalconcError:
            self.steps = None
        else:
            until = getattr(pause, "until", None)
            now = self.engine.clock.now()
            self.sleeps_until = now + 0.05 if until is None else min(until, now + 0.05)

    def leave(self) -> None:
        """Begin to give back what it holds."""
        occupancy, self.occupancy = self.occupancy, None
        assert occupancy is not None
        self.steps = acquiring.give_back(self.engine, occupancy)

    def crash(self) -> None:
        """End as by SIGKILL: the kernel lets go of the owner's lock, and nothing else happens."""
        engine = self.engine
        engine.disown()
        engine._arrears.clear()
        engine.abandon = engine.give_back_later = lambda serial: None  # type: ignore[method-assign]
        if engine.owner is not None:
            engine.owner.abandon()
            engine.owner = None
        if engine.store.database.connection is not None:
            engine.store.database.connection.close()
            engine.store.database.connection = None
        engine.watch.close()
        engine._post.close()
        self.steps = None
        self.occupancy = None


class Simulation:
    """A run from a seed.

    Args:
        home: where the store is made.
        seed: of everything that happens.
    """

    def __init__(self, home: Path, seed: int) -> None:
        self._home = home
        self._random = random.Random(seed)
        self._clock = VirtualClock()
        self._operator = Engine(home, self._clock, DeafMailbox)
        for name, limit in zip(STEADY, (1, 3), strict=True):
            self._create(name, limit, 0.0)
        self._create(RATE, RATE_LIMIT_SLOTS, RATE_DECAY)
        self._processes = [Process(home, self._clock) for _ in range(4)]
        self._look = sqlite3.connect(home / DATABASE_NAME, isolation_level=None)
        self.steps = 0

    def _create(self, name: str, limit: int, decay: float) -> None:
        administration.ensure(self._operator, name, limit, active=True, decay=decay)

    def run(self, steps: int) -> None:
        """Go so many steps, look at the invariants after each, and end with everybody gone and all given back."""
        for _ in range(steps):
            self._clock.time += self._random.choice((0.0, 0.0, 0.001, 0.01, 0.06))
            self._act(self._random.choice(self._processes))
            self.assert_invariants()
            self.steps += 1
        self._wind_up()

    def _act(self, process: Process) -> None:
        now = self._clock.time
        chance = self._random.random()
        if chance < 0.01:
            process.crash()
            self._processes[self._processes.index(process)] = Process(self._home, self._clock)
        elif chance < 0.02:
            process.stopped_until = now + self._random.uniform(0.1, 3.0)
        elif chance < 0.025:
            limit = self._random.choice((0, 1, 2, 3))
            administration.ensure(self._operator, self._random.choice(STEADY), max(limit, 1), active=True, decay=0.0)
        elif process.stopped_until > now:
            return
        elif process.steps is not None:
            process.step()
        elif process.occupancy is not None:
            process.leave()
        else:
            process.begin(self._request(), self._random.choice((None, 0, 0.05, 1.0)))

    def _request(self) -> Request:
        if self._random.random() < 0.3:
            return Request((RATE,), self._random.randint(1, RATE_LIMIT_SLOTS), RATE_LIMIT)
        names = self._random.choice((("one",), ("two",), ("one", "two")))
        return Request(names, 1, CONCURRENCY)

    def assert_invariants(self) -> None:
        """Nobody is over-admitted, sums equal rows, the line is kept, and who is first and fits does not wait."""
        self._assert_sums_equal_rows()
        self._assert_nobody_fits_and_waits()

    def _assert_sums_equal_rows(self) -> None:
        differing = self._look.execute(
            "SELECT total.limit_id FROM slots AS total LEFT JOIN slots AS holder ON holder.limit_id = total.limit_id "
            "AND holder.owner_id <> 0 AND holder.released IS NULL WHERE total.owner_id = 0 "
            "GROUP BY total.limit_id HAVING total.slots <> coalesce(sum(holder.slots), 0)"
        ).fetchall()
        assert differing == [], "a sum differs from its rows"
        living = sum(process.occupancy is not None for process in self._processes)
        held = self._look.execute(
            "SELECT count(DISTINCT owner_id || ' ' || serial) FROM slots WHERE owner_id > 0 AND released IS NULL"
        ).fetchone()[0]
        assert held >= living, "somebody who is inside holds nothing by the rows"

    def _assert_nobody_fits_and_waits(self) -> None:
        """After every transaction the first in a line without decay waits only for slots that are occupied."""
        free = {
            limit_id: limit - occupied
            for limit_id, limit, occupied in self._look.execute(
                'SELECT limits.id, limits."limit", slots.slots FROM limits JOIN slots ON limit_id = limits.id '
                "WHERE owner_id = 0 AND limits.slot_decay_per_second = 0",
            )
        }
        queues: dict[int, list[int]] = {}
        for limit_id, ticket in self._look.execute("SELECT limit_id, ticket FROM queue ORDER BY ticket"):
            queues.setdefault(limit_id, []).append(ticket)
        places: dict[int, list[int]] = {}
        for limit_id, tickets in queues.items():
            for ticket in tickets:
                places.setdefault(ticket, []).append(limit_id)
        for ticket, slots in self._look.execute("SELECT ticket, slots FROM waiters WHERE state = 0"):
            limits = places.get(ticket, [])
            if limits and all(limit in free for limit in limits):
                first = all(queues[limit][0] == ticket for limit in limits)
                assert not (first and all(free[limit] >= slots for limit in limits)), f"{ticket} waits for nothing"

    def _wind_up(self) -> None:
        """Whoever lives finishes; then nothing may be left."""
        for process in self._processes:
            process.crash()
        last = Process(self._home, self._clock)
        for name in STEADY:
            last.begin(Request((name,), 1, CONCURRENCY), None)
            for _ in range(400):
                if last.steps is None:
                    break
                last.step()
                self._clock.time += 0.1
            assert last.occupancy is not None, f"{name!r} can't be had once everybody is gone"
            last.leave()
            while last.steps is not None:
                last.step()
        assert_sound(self._home)
        self._look.close()
        for engine in (last.engine, self._operator):
            engine.close()
            engine.watch.close()
            engine._post.close()


def seed_from_environment() -> int | None:
    """The seed to replay, if one is named."""
    text = os.environ.get("LOCALCONC_TEST_SEED")
    return None if text is None else int(text)
