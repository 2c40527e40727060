"""Several processes as one deterministic run: a seeded scheduler interleaves them at their transactions.

Each process is an engine of its own on one home. It lives by a clock that only the scheduler moves, and its steps are
those of `waiting.steps`: between two pauses lies at most one transaction of each kind. A crash closes the owner's file
and drops the engine; a stopped process is one that the scheduler leaves alone and the others find stopped; wakeups
arrive late, or not at all. Meanwhile an operator changes the limits in every way that there is.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, Call, Request
from localconc._engine.engine import Engine
from localconc._engine.holding.holdings import Handle
from localconc._engine.homes.home import DATABASE_NAME, prepare
from localconc._engine.liveness import reaper
from localconc._engine.liveness.lock_notes import hand_on
from localconc._engine.liveness.owner import Owner
from localconc._engine.operations import limits as operations
from localconc._engine.operations import reading
from localconc._engine.waiting import pauses, steps
from localconc._engine.waiting.mailboxes.mailbox import Mailbox
from localconc.errors import DeadlockError, LocalconcError, StoreError
from tests.kit import forever
from tests.kit.engines import kill

from . import waiting_rows
from .inspection import assert_sound
from .invariants import Invariants

#: Names of limits with what they are at first: slots, and decay.
LIMITS = {"one": (1, 0.0), "two": (3, 0.0), "three": (2, 0.0), "rate": (2, 5.0)}

PROCESSES, THREADS = 4, 2

#: As many blocks stand inside each other.
MAX_NESTED = 2

#: Pids that no process has.
FIRST_PID = 2**30

#: Everything that one schedule after another has to have played.
KINDS = frozenset(
    {"begin", "step", "leave", "drop", "interrupt", "stop", "crash", "end", "resize", "delete", "create", "rename"}
    | {"switch", "decay", "occupy", "pause", "resume", "pass over", "lose a wakeup", "accept a wakeup"}
    | {"nest", "number", "deadlock"}
)


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

    async def pause_task(self, event: Any, until: float | None) -> None:
        raise AssertionError("the scheduler pauses, nobody else")


class PostOffice:
    """The mailboxes of all processes; it loses some of what is sent."""

    def __init__(self, is_lost: Callable[[], bool]) -> None:
        self._is_lost = is_lost
        self._mailboxes: dict[str, Mailbox] = {}
        self._made = 0

    def take(self, owner: Owner) -> Mailbox:
        self._made += 1
        mailbox = Mailbox(f"{owner.key}:{self._made}")
        self._mailboxes[mailbox.address] = mailbox
        return mailbox

    def put(self, mailbox: Mailbox) -> None:
        self._mailboxes.pop(mailbox.address, None)

    def note_poller(self, mailbox: Any) -> None:
        """Nobody polls on a clock that jumps."""

    pollers = 0

    def wake_answered(self, queued: Collection[str]) -> None:
        """Each thread polls for itself."""

    def __len__(self) -> int:
        return len(self._mailboxes)

    def send(self, wakeups: list[tuple[str, tuple[int, int, float, float]]]) -> None:
        for address, fields in wakeups:
            if address in self._mailboxes and not self._is_lost():
                self._mailboxes[address].deliver(fields)

    def close(self) -> None:
        """It goes on for the other processes."""

    def close_in_child(self) -> None:
        """Nobody forks here."""


class Thread:
    """One thread of a simulated process.

    Attributes:
        steps: the call that it is in the middle of.
        call: what it acquires, or has acquired last.
        serial: of that acquisition, once it was queued.
        handles: what it holds, the innermost block last.
        mailbox: where it waits for wakeups.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.steps: steps.Steps[Any] | None = None
        self.call: Call | None = None
        self.serial: int | None = None
        self.handles: list[Handle] = []
        self.mailbox: Mailbox | None = None

    def begin(self, call: Call, mailboxes: PostOffice, *, fast: bool) -> None:
        """Begin to acquire."""
        self.call, self.serial = call, None
        handle = self.engine.acquisitions.acquire_fast(call.request, "simulated", id(self)) if fast else None
        if handle is not None:
            self._note(handle)
            return
        own = {id(self)}
        self.steps = steps.acquire(self.engine, call, "simulated", id(self), mailboxes, own.intersection, polls=True)

    def leave(self, *, fast: bool) -> None:
        """Begin to release the innermost block."""
        handle = self.handles.pop()
        if not (fast and self.engine.acquisitions.release_fast(handle)):
            self.steps = steps.release(self.engine, handle)

    def step(self) -> None:
        """Go on to the next pause.

        Raises:
            DeadlockError: the call is refused.
        """
        assert self.steps is not None
        wakeups = None if self.mailbox is None else self.mailbox.take()
        self._go(lambda running: running.send(wakeups))

    def _note(self, handle: Handle) -> None:
        """Note what was acquired, if it is to be released."""
        if handle.serial in self.engine.holdings.grants:
            self.handles.append(handle)

    def interrupt(self) -> None:
        """Strike the call where it pauses."""
        self._go(lambda running: running.throw(KeyboardInterrupt()))

    def _go(self, go: Callable[[steps.Steps[Any]], pauses.Backoff | pauses.Park]) -> None:
        assert self.steps is not None
        try:
            pause = go(self.steps)
        except StopIteration as end:
            self.steps = self.mailbox = None
            if isinstance(end.value, Handle):
                self._note(end.value)
        except StoreError:
            raise
        except DeadlockError:
            self.steps = self.mailbox = None
            raise
        except (LocalconcError, KeyboardInterrupt):
            self.steps = self.mailbox = None
        else:
            self.mailbox = None
            if isinstance(pause, pauses.Park):
                self.mailbox, self.serial = pause.mailbox, pause.serial


class Process:
    """One simulated process."""

    def __init__(self, home: Path, clock: VirtualClock, post_office: PostOffice, pid: int) -> None:
        self.engine = Engine(home, clock, post_office, post_office)
        prepare(home)
        self.engine.membership.owner = owner = Owner(home)
        self.pid = owner.pid = pid
        hand_on(owner.descriptor)  # no process of the machine has this pid: the lock alone tells that it lives
        self.threads = [Thread(self.engine) for _ in range(THREADS)]
        self.stopped_until = 0.0

    def crash(self) -> None:
        """End as by SIGKILL."""
        kill(self.engine)
        self.threads.clear()

    def end(self) -> None:
        """End in good order, whatever the threads are doing: what they hold goes with the owner's file."""
        self.engine.close()
        self.crash()


class Simulation:
    """A run from a seed.

    Args:
        home: where the store is made.
        seed: of everything that happens.

    Attributes:
        played: how often each kind of thing happened.
    """

    def __init__(self, home: Path, seed: int) -> None:
        self._home = home
        self._random = random.Random(seed)
        self._clock = VirtualClock()
        self.played: Counter[str] = Counter()
        self._post_office = PostOffice(self._is_lost)
        self._pids = 0
        self._operator = Process(home, self._clock, self._post_office, self._next_pid()).engine
        for name, (limit, decay) in LIMITS.items():
            operations.ensure(self._operator, name, limit, active=True, decay=decay)
        self._processes = [self._new_process() for _ in range(PROCESSES)]
        self._look = sqlite3.connect(home / DATABASE_NAME, isolation_level=None)
        self._invariants = Invariants(self._look)
        self._stuck_by_operator: set[int] = set()
        self.steps = 0

    def _next_pid(self) -> int:
        self._pids += 1
        return FIRST_PID + self._pids

    def _new_process(self) -> Process:
        return Process(self._home, self._clock, self._post_office, self._next_pid())

    def _is_lost(self) -> bool:
        is_lost = self._random.random() < 0.3
        self.played["lose a wakeup"] += is_lost
        return is_lost

    # ---- the schedule ----------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Go this many steps, check the invariants after each, let everybody finish, and end with nothing left."""
        with self._seen_as_stopped():
            for _ in range(steps):
                self._clock.time += self._random.choice((0.0, 0.0, 0.001, 0.01, 0.06, 0.06, 0.4))
                self._act()
                self._settle()
                self._check()
                self._check_that_nobody_waits_forever()
                self.steps += 1
            self._let_everybody_finish()
        self._wind_up()

    @contextmanager
    def _seen_as_stopped(self) -> Iterator[None]:
        def is_stopped(pid: int) -> bool:
            return any(each.pid == pid and each.stopped_until > self._clock.time for each in self._processes)

        logger = logging.getLogger("localconc")
        with mock.patch.object(reaper, "is_stopped", is_stopped), mock.patch.object(logger, "disabled", True):
            yield

    def _act(self) -> None:
        process = self._random.choice(self._processes)
        chance = self._random.random()
        if chance < 0.02:
            self._end(process)
        elif chance < 0.05:
            self.played["stop"] += 1
            waiting = [each for each in self._processes if any(thread.mailbox for thread in each.threads)]
            stopped = self._random.choice(waiting or self._processes)
            stopped.stopped_until = self._clock.time + self._random.uniform(0.1, 6.0)
        elif chance < 0.10:
            self._change_limits()
            self._stuck_by_operator |= self._stuck()
        elif process.stopped_until <= self._clock.time:
            self._go_on(process, self._random.choice(process.threads))

    def _go_on(self, process: Process, thread: Thread) -> None:
        chance = self._random.random()
        if thread.steps is not None:
            kind = "interrupt" if chance < 0.04 else self._step(thread)
            if kind == "interrupt":
                thread.interrupt()
        elif not thread.handles or (chance < 0.45 and len(thread.handles) < MAX_NESTED):
            kind = "nest" if thread.handles else "begin"
            thread.begin(self._call(), self._post_office, fast=self._random.random() < 0.5)
        elif chance < 0.6:
            kind = "number"
            self._number(thread)
        elif chance < 0.68:
            kind = "drop"
            self._drop(thread)
        else:
            kind = "leave"
            thread.leave(fast=chance < 0.84)
        self.played[kind] += 1

    def _step(self, thread: Thread) -> str:
        """Let a thread go on in its call; return what it comes to."""
        self._note_wakeups(thread)
        holds = len(thread.handles)
        ticket = self._ticket_of(thread)
        try:
            thread.step()
        except DeadlockError:
            self._check_that_it_waits_forever(thread, ticket)
            return "deadlock"
        self.played["accept a wakeup"] += len(thread.handles) > holds and self._had_secret
        return "step"

    def _number(self, thread: Thread) -> None:
        """Ask which slots a block holds."""
        serial = thread.handles[-1].serial
        grant = thread.engine.holdings.grants[serial]
        numbers = thread.engine.holdings.numbers(serial)
        given = {ref.limit_id: numbers[ref.name] for ref in grant.refs}
        self._invariants.check_numbers(thread.engine.membership.owner_id, serial, given)

    def _note_wakeups(self, thread: Thread) -> None:
        received = () if thread.mailbox is None else thread.mailbox._received
        self._had_secret = any(wakeup[1] for wakeup in received)

    def _drop(self, thread: Thread) -> None:
        """Forget a block without leaving it: the background releases it."""
        thread.handles.pop()

    def _settle(self) -> None:
        """Let the background release what it has to; nothing else happens until it has."""
        deadline = time.monotonic() + 10.0
        while any(process.engine.holdings.being_released() for process in self._processes):
            assert time.monotonic() < deadline, "a dropped block is not released"
            time.sleep(0.0001)

    def _end(self, process: Process) -> None:
        kind = self._random.choice(("crash", "end"))
        (process.crash if kind == "crash" else process.end)()
        self._processes[self._processes.index(process)] = self._new_process()
        self.played[kind] += 1

    def _call(self) -> Call:
        timeout = self._random.choice((None, None, 0, 0.05, 1.0))
        retries = self._random.choice((None, None, None, 0, 2))
        slots = self._random.choice((1, 1, 2))
        if self._random.random() < 0.3:
            return Call(Request(("rate",), slots, RATE_LIMIT, create_if_missing=False), timeout, retries)
        names = self._random.choice((("one",), ("two",), ("three",), ("one", "two"), ("two", "three"), ("rate", "one")))
        slots = 1 if "one" in names else slots
        return Call(Request(names, slots, CONCURRENCY, create_if_missing=False), timeout, retries)

    # ---- the operator ----------------------------------------------------------------------------------------

    def _change_limits(self) -> None:
        known = {limit.name: limit for limit in reading.read_all(self._operator)}
        self._check()  # the look has reaped dead processes, so that others may be inside by the limits as they were
        missing = sorted(LIMITS.keys() - known.keys())
        if missing and (not known or self._random.random() < 0.5):
            name = self._random.choice(missing)
            limit, decay = LIMITS[name]
            operations.create(self._operator, name, limit, active=True, active_slots=0, decay=decay)
            self.played["create"] += 1
            return
        name = self._random.choice(sorted(known))
        kinds = ("resize", "delete", "rename", "switch", "decay", "occupy", "pause", "pause", "resume")
        kind = self._random.choice(kinds)
        self.played[kind] += 1
        if kind == "delete":
            self._invariants.forgive(name)
            operations.delete(self._operator, name)
        elif kind == "pause":
            operations.pause(self._operator, name, self._random.uniform(0.01, 2.0))
        elif kind == "resume":
            operations.resume(self._operator, name)
        elif kind == "occupy":
            self._invariants.forgive(name)
            slots = self._random.randint(0, known[name].limit)
            self._update(name, active_slots=slots)
        elif kind == "rename":
            other = self._random.choice([*LIMITS, "another"])
            if other not in known:
                self._update(name, name=other)
        elif kind == "resize":
            self._update(name, limit=self._random.choice((0, 1, 2, 3, 4)))
        elif kind == "switch":
            self._update(name, active=not known[name].active)
        else:
            self._update(name, decay=self._random.choice((0.0, 0.0, 1.0, 5.0)))

    def _update(self, which: str, /, **changes: Any) -> None:
        unchanged = {"name": None, "limit": None, "active": None, "active_slots": None, "decay": None}
        operations.update(self._operator, which, **{**unchanged, **changes})

    # ---- the invariants, and the end -------------------------------------------------------------------------

    def _check(self) -> None:
        inside = [
            (process.engine.membership.owner_id, handle.serial, ref.limit_id)
            for process in self._processes
            for thread in process.threads
            for handle in thread.handles
            for ref in process.engine.holdings.grants[handle.serial].refs
        ]
        self._invariants.check(inside, self._clock.time)
        self.played["pass over"] += self._invariants.newly_passed_over

    # ---- who waits forever -----------------------------------------------------------------------------------

    def _threads(self) -> list[Thread]:
        return [thread for process in self._processes for thread in process.threads]

    def _ticket_of(self, thread: Thread) -> int | None:
        row = self._look.execute(
            "SELECT ticket FROM waiters WHERE owner_id = ? AND serial = ?",
            (thread.engine.membership.owner_id, thread.serial),
        ).fetchone()
        return None if row is None else int(row[0])

    def _stuck(self, *more: forever.Wish) -> set[int]:
        """Return the tickets of those who wait forever, of the threads that live."""
        places, held = waiting_rows.places(self._look), waiting_rows.slots_held(self._look)
        wishes, holds = list(more), []
        for thread in self._threads():
            owner_id = thread.engine.membership.owner_id
            place = places.get((owner_id, thread.serial or 0))
            if place is not None and thread.steps is not None and _is_endless(thread.call):
                wishes.append(forever.Wish(place.ticket, thread, place.slots, place.limit_ids))
            for handle in thread.handles:
                holds += [forever.Hold(thread, *each) for each in held.get((owner_id, handle.serial), ())]
        return forever.wait_forever(wishes, holds, waiting_rows.sizes_that_count(self._look))

    def _check_that_it_waits_forever(self, thread: Thread, ticket: int | None) -> None:
        """Nobody is refused as a deadlock who could go on."""
        assert thread.call is not None
        assert _is_endless(thread.call), "a call with an end was refused for a deadlock"
        request = thread.call.request
        ticket = forever.LAST if ticket is None else ticket
        wish = forever.Wish(ticket, thread, request.slots, waiting_rows.ids_of(self._look, request.names))
        assert ticket in self._stuck(wish), f"refused for a deadlock, but could go on: {request}"

    def _check_that_nobody_waits_forever(self) -> None:
        """Nobody waits who can't ever go on, unless an operator made it so, or it stands behind such a one."""
        stuck = self._stuck()
        self._stuck_by_operator &= stuck
        holding = {self._ticket_of(thread) for thread in self._threads() if thread.handles}
        assert not stuck & holding - self._stuck_by_operator, "a request waits forever for its own caller"

    def _let_everybody_finish(self) -> None:
        """Whoever lives goes on, once every limit admits again; nobody starves."""
        for limit in reading.read_all(self._operator):
            operations.resume(self._operator, limit.name)
            self._invariants.forgive(limit.name)
            self._update(limit.name, limit=max(2, limit.limit), active_slots=0)  # what an operator occupied, too
        for process in self._processes:
            process.stopped_until = 0.0
        for _ in range(400):
            busy = [thread for thread in self._threads() if thread.steps is not None or thread.handles]
            if not busy:
                break
            for thread in busy:
                if thread.steps is None:
                    thread.leave(fast=False)
                elif self._ticket_of(thread) in self._stuck():
                    thread.interrupt()  # an operator closed the circle, and somebody has to open it
                else:
                    self._step(thread)
                self._check()
            self._clock.time += 0.1
        assert not busy, f"{len(busy)} thread(s) never finish"

    def _wind_up(self) -> None:
        """All processes end; then every slot can be had, and nothing is left."""
        for process in self._processes:
            process.crash()
        for name, (limit, _) in LIMITS.items():
            operations.ensure(self._operator, name, limit, active=True, decay=0.0)
            self._update(name, active_slots=0)
            operations.resume(self._operator, name)
        last = self._new_process()
        thread = last.threads[0]
        for name, (limit, _) in LIMITS.items():
            thread.begin(Call(Request((name,), limit, CONCURRENCY), 0, None), self._post_office, fast=False)
            while thread.steps is not None:
                thread.step()
            assert thread.handles, f"{name!r} can't be had once everybody is gone"
            thread.leave(fast=False)
            while thread.steps is not None:
                thread.step()
        assert_sound(self._home)
        left = self._look.execute("SELECT count(*) FROM slots WHERE owner_id > 0").fetchone()[0]
        assert left == 0, "slots are held by processes that are gone"
        assert self._look.execute("SELECT count(*) FROM waiters").fetchone()[0] == 0
        self._look.close()
        for engine in (last.engine, self._operator):
            engine.close()
            engine.reaper.forget()


def _is_endless(call: Call | None) -> bool:
    return call is not None and call.timeout_seconds is None and call.max_retries is None


def seed_from_environment() -> int | None:
    """Return the seed to replay, if one is named."""
    text = os.environ.get("LOCALCONC_TEST_SEED")
    return None if text is None else int(text)
