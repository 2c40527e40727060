"""The engine against a model, through random sequences of acquire, release, cancel, kill, and changes of limits.

Several engines on one home stand for several processes: each has its own connection, owner and queue places, as a
process has. Time is moved by hand. After each step the store must agree with the model and with its own rows.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from localconc._engine.acquiring import acquisitions
from localconc._engine.acquiring.terms import Deadlocked, Queued, Refused, WaitTerms
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, Request
from localconc._engine.holding.holdings import Handle
from localconc._engine.operations import limits as operations
from localconc._engine.operations import reading
from localconc.errors import ConcurrencySlotAcquisitionError
from tests.kit.clocks import ManualClock
from tests.kit.engines import kill, silent_engine
from tests.kit.invariants import check_store
from tests.kit.limit_model import LimitModel, ModelRequest, Refusal

NAMES = ("a", "b", "c")
DECAYS = (0.0, 0.5, 2.0)
name_sets = st.sets(st.sampled_from(NAMES), min_size=1).map(lambda names: tuple(sorted(names)))
processes = st.integers(0, 2)
indices = st.integers(0, 10)


class Process:
    """An engine with what it holds and waits for, oldest first. Nothing else here knows the engine.

    It has one thread that uses blocks, which wait for as long as it takes; all else is held by handles.
    """

    def __init__(self, directory: Path, clock: ManualClock) -> None:
        self._engine = silent_engine(directory, clock)
        self._engine.store.database.ensure_open()
        self._clock = clock
        assert self._engine.membership.owner is not None
        mailbox = self._engine.mailboxes.take(self._engine.membership.owner)
        self._terms = WaitTerms(mailbox, has_end=True, needs_estimate=False, stops=(), generation=1)
        self.holds: dict[ModelRequest, Handle] = {}
        self.waits: dict[ModelRequest, tuple[Request, Handle, Queued]] = {}

    def ask(self, asked: ModelRequest, *, short_way: bool, may_wait: bool) -> str:
        """Acquire, or join the queue; return "admitted", "waits", "out of slots" or "refused"."""
        tries = self._engine.acquisitions
        request = Request(asked.names, asked.slots, RATE_LIMIT if asked.is_rate else CONCURRENCY, limit=asked.limit)
        context = 0 if asked.thread is None else 1
        handle = tries.acquire_fast(request, asked.label, context) if short_way else None
        if handle is not None:
            self.holds[asked] = handle
            return "admitted"
        handle = self._engine.holdings.begin(asked.label, "", context)
        terms = self._terms
        if asked.thread is not None:
            terms = terms._replace(has_end=False, stops=(1,) if self.holds_in_blocks else ())
        try:
            outcome = tries.try_acquire(request, handle, terms if may_wait else None)
        except ConcurrencySlotAcquisitionError:
            self._engine.holdings.undo(handle)
            return "refused"
        if isinstance(outcome, Handle):
            self.holds[asked] = outcome
            return "admitted"
        if isinstance(outcome, (Refused, Deadlocked)):
            self._engine.holdings.undo(handle)
            return "out of slots" if isinstance(outcome, Refused) else "deadlock"
        self.waits[asked] = (request, handle, outcome)
        return "waits"

    @property
    def holds_in_blocks(self) -> bool:
        return 1 in self._engine.holdings.contexts

    def collect(self) -> tuple[list[ModelRequest], list[ModelRequest]]:
        """Look after each request that waits, as its thread would; return who was admitted and who was refused."""
        admitted, refused = [], []
        queued_requests = self._engine.queued
        for asked, (request, handle, queued) in list(self.waits.items()):
            status = queued_requests.check(queued)
            if status.due_at is not None and status.due_at <= self._clock.now():
                queued_requests.admit_overdue(status.limit_ids)
                status = queued_requests.check(queued)
            if status.is_waiting:
                continue
            del self.waits[asked]
            try:
                outcome = queued_requests.accept(request, queued, handle)
                assert isinstance(outcome, Handle)
                self.holds[asked] = outcome
                admitted.append(asked)
            except ConcurrencySlotAcquisitionError:
                self._engine.holdings.undo(handle)
                refused.append(asked)
        return admitted, refused

    def release(self, asked: ModelRequest, *, short_way: bool) -> None:
        handle = self.holds.pop(asked)
        with patch.object(acquisitions, "HAND_OVER_AFTER_SECONDS", -1.0):  # the first try is to hand over
            if not (short_way and self._engine.acquisitions.release_fast(handle)):
                self._engine.acquisitions.release_by_rules(handle)

    def numbers(self, asked: ModelRequest) -> dict[str, tuple[int, ...] | None]:
        """Ask which slots a request has."""
        return self._engine.holdings.numbers(self.holds[asked].serial)

    def drop(self, asked: ModelRequest) -> None:
        """Undo a block that nobody left, as its finalizer does."""
        self._engine.holdings.undo(self.holds.pop(asked))

    def give_up(self, asked: ModelRequest) -> None:
        """Leave the queue, as a request does whose time is up."""
        _, handle, queued = self.waits.pop(asked)
        self._engine.queued.give_up(queued)
        self._engine.holdings.undo(handle)

    def cancel(self, asked: ModelRequest) -> None:
        """Leave the queue, as a request does that an exception struck."""
        self._engine.holdings.undo(self.waits.pop(asked)[1])

    def die(self) -> None:
        """The kernel closes what the process had open."""
        kill(self._engine)

    def close(self) -> None:
        self._engine.holdings.forget_all()
        self._engine.close()

    # ---- as an operator --------------------------------------------------------------------------------------

    def create(self, name: str, limit: int, decay: float) -> None:
        operations.create(self._engine, name, limit, active=True, active_slots=0, decay=decay)

    def update(self, which: str, **changes: Any) -> None:
        nothing = dict.fromkeys(("name", "limit", "active", "active_slots", "decay"))
        operations.update(self._engine, which, **{**nothing, **changes})

    def delete(self, name: str) -> None:
        operations.delete(self._engine, name)

    def pause(self, name: str, seconds: float) -> None:
        operations.pause(self._engine, name, seconds)

    def resume(self, name: str) -> None:
        operations.resume(self._engine, name)

    def paused(self) -> set[str]:
        return {limit.name for limit in reading.read_all(self._engine) if limit.paused_until is not None}

    def shown(self) -> dict[str, int]:
        return {limit.name: limit.active_slots for limit in reading.read_all(self._engine)}

    def slots_held(self, name: str) -> dict[str, int]:
        """Slots of a limit by the label of the request that holds them."""
        return {holder.thread: holder.slots for holder in reading.holders(self._engine, name)}

    def queue(self) -> list[str]:
        return [waiter.thread for waiter in reading.waiters(self._engine, None)]


class LimiterMachine(RuleBasedStateMachine):
    """Limits named `a` to `c`, three processes, and a queue in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="model-", dir=_fast_directory()))
        self.clock = ManualClock()
        self.model = LimitModel()
        self.model.advance(self.clock.now())
        self.number = 0

    @initialize(limits=st.tuples(*[st.integers(1, 3)] * 3), decay=st.sampled_from(DECAYS))
    def begin(self, limits: tuple[int, int, int], decay: float) -> None:
        self.processes = [Process(self.directory, self.clock) for _ in range(3)]
        for name, limit, its_decay in zip(NAMES, limits, (0.0, 0.0, decay), strict=True):
            self.create(name, limit, its_decay)

    @property
    def operator(self) -> Process:
        return self.processes[0]

    # ---- calls -----------------------------------------------------------------------------------------------

    @rule(
        who=processes,
        names=name_sets,
        slots=st.integers(1, 3),
        short_way=st.booleans(),
        kind=st.sampled_from(["plain", "plain", "block", "block", "rate", "with limit", "once"]),
    )
    def ask(self, who: int, names: tuple[str, ...], slots: int, short_way: bool, kind: str) -> None:
        if kind == "with limit" and self.model.is_named_by_a_waiter(names):
            return  # if it makes a limit that others name, too: before or behind them? That is not said
        self.number += 1
        slots, limit = (1, 2) if kind == "with limit" else (slots, None)
        process = self.processes[who]
        asked = ModelRequest(f"request {self.number}", names, slots, kind == "rate", limit)
        if kind == "block":
            if any(each.thread is process for each in self.model.waiting):
                return  # its only thread waits
            asked.thread = process
        holds_in_blocks = process.holds_in_blocks
        came_of_it = self.processes[who].ask(asked, short_way=short_way, may_wait=kind != "once")
        try:
            self.model.arrive(asked)
        except Refusal:
            assert came_of_it == "refused"
            return
        assert came_of_it != "refused"
        if came_of_it in ("waits", "deadlock") and asked.thread is not None:
            is_deadlock = holds_in_blocks and self.model.waits_forever(asked)
            assert came_of_it == ("deadlock" if is_deadlock else "waits")
        if came_of_it == "deadlock":
            self.model.leave(asked)
        self.collect([asked] if came_of_it == "admitted" else [])
        if came_of_it == "out of slots":
            self.model.check_that_nobody_waits_for_nothing(self.operator.shown())
            self.model.leave(asked)

    @rule(who=processes, which=indices, slots=st.integers(1, 2), more=name_sets)
    def ask_for_what_others_have_or_want(self, who: int, which: int, slots: int, more: tuple[str, ...]) -> None:
        others = [*self.model.waiting, *self.model.holding]
        if others:
            names = others[which % len(others)].names
            self.ask(who, tuple(sorted({*names, *more[: which % 2]})), slots, False, "plain")

    @rule(who=st.tuples(processes, processes, processes), names=st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")]))
    def several_ask_for_the_same(self, who: tuple[int, ...], names: tuple[str, ...]) -> None:
        for each in who:
            self.ask(each, names, 1, False, "plain")

    @rule(who=st.tuples(processes, processes), names=st.permutations(NAMES))
    def two_blocks_ask_crosswise(self, who: tuple[int, int], names: list[str]) -> None:
        first, second = who
        for each, name in ((first, names[0]), (second, names[1]), (first, names[1]), (second, names[0])):
            self.ask(each, (name,), 1, False, "block")

    @rule(who=processes, name=st.sampled_from(NAMES))
    def ask_before_and_in_a_pause(self, who: int, name: str) -> None:
        self.ask(who, (name,), 1, False, "plain")
        self.pause(name, 2.0)
        self.ask(who, (name,), 1, True, "plain")

    @rule(who=processes, which=indices, short_way=st.booleans())
    def release(self, who: int, which: int, short_way: bool) -> None:
        if asked := self.pick(self.processes[who].holds, which):
            self.processes[who].release(asked, short_way=short_way)
            self.model.leave(asked)

    @rule(who=processes, which=indices)
    def number(self, who: int, which: int) -> None:
        asked = self.pick(self.processes[who].holds, which)
        if asked and asked.holds:
            self.model.number(asked, self.processes[who].numbers(asked))

    @rule(who=processes, which=indices)
    def drop(self, who: int, which: int) -> None:
        if asked := self.pick(self.processes[who].holds, which):
            self.processes[who].drop(asked)
            self.model.leave(asked)

    @rule(who=processes, which=indices, is_struck=st.booleans())
    def leave_the_queue(self, who: int, which: int, is_struck: bool) -> None:
        if asked := self.pick(self.processes[who].waits, which):
            (self.processes[who].cancel if is_struck else self.processes[who].give_up)(asked)
            self.model.leave(asked)

    @rule(who=processes, which=indices, other=processes, other_which=indices, is_struck=st.booleans())
    def leave_the_queue_just_when_admitted(
        self, who: int, which: int, other: int, other_which: int, is_struck: bool
    ) -> None:
        released = self.pick(self.processes[who].holds, which)
        asked = self.pick(self.processes[other].waits, other_which)
        if released and asked and not asked.is_rate:  # what rate_limit took at the last moment, nobody gives back
            self.processes[who].release(released, short_way=False)
            self.model.leave(released)
            (self.processes[other].cancel if is_struck else self.processes[other].give_up)(asked)
            self.model.leave(asked)

    @rule(who=st.integers(1, 2))
    def kill(self, who: int) -> None:
        """A newcomer takes the place of the dead process; its opening finds the dead one."""
        dead = self.processes[who]
        dead.die()
        for asked in (*dead.holds, *dead.waits):
            self.model.leave(asked)
        self.processes[who] = Process(self.directory, self.clock)

    @rule(seconds=st.one_of(st.floats(0, 3), st.floats(0, 100)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.advance(self.clock.now())

    # ---- an operator's changes -------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 5), decay=st.sampled_from(DECAYS))
    def create(self, name: str, limit: int, decay: float) -> None:
        existing = self.model.limits.get(name)
        if existing is None or not existing.configured:
            self.operator.create(name, limit, decay)
            if existing is None:
                self.model.resolve(ModelRequest("", (name,), 1))
            refused = self.model.change_decay(name, decay, lambda asked: 0)  # while it still counts for nobody
            refused += self.model.change(name, limit=limit, active=True)
            self.collect(refused=refused)

    def existing(self, name: str) -> bool:
        return name in self.model.limits

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 5))
    def resize(self, name: str, limit: int) -> None:
        if self.existing(name):
            self.operator.update(name, limit=limit)
            self.collect(refused=self.model.change(name, limit=limit))

    @rule(name=st.sampled_from(NAMES), active=st.sampled_from([True, True, False]))
    def switch(self, name: str, active: bool) -> None:
        if self.existing(name):
            self.operator.update(name, active=active)
            self.collect(refused=self.model.change(name, active=active))

    @rule(name=st.sampled_from(NAMES), decay=st.sampled_from(DECAYS))
    def change_decay(self, name: str, decay: float) -> None:
        if self.existing(name):
            self.operator.update(name, decay=decay)
            left = self.operator.slots_held(name) if decay == 0 else {}
            refused = self.model.change_decay(name, decay, lambda asked: left.get(asked.label, 0))
            self.collect(refused=refused)

    @rule(name=st.sampled_from(NAMES), new_name=st.sampled_from(NAMES))
    def rename(self, name: str, new_name: str) -> None:
        if self.existing(name) and not self.existing(new_name):
            self.operator.update(name, name=new_name)
            self.collect(refused=self.model.rename(name, new_name))

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        if self.existing(name):
            self.operator.delete(name)
            self.collect(refused=self.model.delete(name))

    @rule(which=indices, other=indices, way=st.sampled_from(["delete", "delete", "switch off", "rename"]))
    def take_away_what_another_waits_for(self, which: int, other: int, way: str) -> None:
        wanted = [request for request in self.model.waiting if len(request.waits_on) > 1] or self.model.waiting
        if wanted:
            limits = wanted[which % len(wanted)].waits_on
            name = limits[other % len(limits)].name
            if way == "delete":
                self.delete(name)
            elif way == "switch off":
                self.switch(name, False)
            else:
                self.rename(name, NAMES[other % len(NAMES)])

    @rule(name=st.sampled_from(NAMES), seconds=st.one_of(st.floats(0.01, 3), st.floats(0.01, 100)))
    def pause(self, name: str, seconds: float) -> None:
        if self.existing(name):
            self.operator.pause(name, seconds)
            self.model.pause(name, seconds)

    @rule(name=st.sampled_from(NAMES))
    def resume(self, name: str) -> None:
        if self.existing(name):
            self.operator.resume(name)
            self.model.resume(name)
            self.collect()

    @rule(name=st.sampled_from(NAMES))
    def forget_holders(self, name: str) -> None:
        if self.existing(name):
            self.operator.update(name, active_slots=0)
            self.collect(refused=self.model.forget_holders(name))

    # ---- what must be so -------------------------------------------------------------------------------------

    def pick(self, entries: dict[ModelRequest, Any], which: int) -> ModelRequest | None:
        return list(entries)[which % len(entries)] if entries else None

    def collect(self, admitted: list[ModelRequest] | None = None, refused: list[ModelRequest] | None = None) -> None:
        """Let all processes look after their waiting requests, and judge whom the engine admitted and refused."""
        all_admitted, all_refused = list(admitted or []), []
        news = True
        while news:  # one hand-over may make room for the next
            news = False
            for process in self.processes:
                its_admitted, its_refused = process.collect()
                all_admitted += its_admitted
                all_refused += its_refused
                news = news or bool(its_admitted)
        assert {asked.label for asked in all_refused} == {asked.label for asked in refused or []}
        self.model.admit_in_turn(all_admitted)
        self.model.adopt_placeholders(self.operator.shown())

    @precondition(lambda self: hasattr(self, "processes"))
    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        self.collect()
        check_store(self.directory)
        shown = self.operator.shown()
        self.model.check_shown(shown)
        assert self.operator.paused() == self.model.paused()
        assert self.operator.queue() == [asked.label for asked in self.model.waiting]
        self.model.check_that_nobody_waits_for_nothing(shown)

    def teardown(self) -> None:
        for process in getattr(self, "processes", []):
            process.close()
        shutil.rmtree(self.directory)


def _fast_directory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


_run: Callable[..., None] = run_state_machine_as_test
_NO_HURRY: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
_WITHOUT_SHRINKING = [phase for phase in Phase if phase is not Phase.shrink]  # that may take minutes


def test_the_engine_does_what_the_model_says() -> None:
    _run(
        LimiterMachine,
        settings=settings(max_examples=150, stateful_step_count=40, phases=_WITHOUT_SHRINKING, **_NO_HURRY),
    )


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Nothing of the many warnings about limits that are not configured."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.sweep
@pytest.mark.timeout(1800)
def test_the_engine_does_what_the_model_says_in_seven_hundred_worlds() -> None:
    _run(LimiterMachine, settings=settings(max_examples=700, stateful_step_count=60, **_NO_HURRY))
