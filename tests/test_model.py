"""The engine against a simple model, through random sequences of acquire, release, update, kill.

Several engines on one home stand for several processes: each has its own connection, owner and queue places, as a
process has. Time is moved by hand. After each step the store must agree with the model and with its own rows.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from localconc._engine import administration
from localconc._engine.engine import Engine, Refused, Waiting
from localconc._engine.model import Party, Request
from localconc._engine.occupancy import Occupancy
from localconc.errors import ConcurrencySlotAcquisitionError
from tests.kit.clocks import ManualClock, SilentMailbox
from tests.kit.invariants import check_store

NAMES = ("a", "b")
name_sets = st.sets(st.sampled_from(NAMES), min_size=1).map(lambda names: tuple(sorted(names)))


class Process:
    """An engine with what it holds and waits for, oldest first."""

    def __init__(self, directory: Path, clock: ManualClock) -> None:
        self.engine = Engine(directory, clock, SilentMailbox)
        self.engine.database.ensure_open()
        self.holds: list[tuple[Request, Occupancy]] = []
        self.waits: list[tuple[Request, Party, Waiting]] = []

    def collect(self) -> None:
        """Look after each request that waits, as its thread would."""
        for entry in list(self.waits):
            request, _, waiting = entry
            answered = self.engine.look(waiting).answered
            if answered is None:
                continue
            self.waits.remove(entry)
            with contextlib.suppress(ConcurrencySlotAcquisitionError):  # the limit was lowered below it
                self.holds.append((request, self.engine.receive(request, waiting, answered, 0.0)))


class LimiterMachine(RuleBasedStateMachine):
    """The limits `a` and `b`, three processes, and a queue in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="model-", dir=_fast_directory()))
        self.clock = ManualClock()

    @initialize(limits=st.tuples(st.integers(1, 4), st.integers(1, 4)))
    def begin(self, limits: tuple[int, int]) -> None:
        self.processes = [Process(self.directory, self.clock) for _ in range(3)]
        self.limits = dict(zip(NAMES, limits, strict=True))
        for name, limit in self.limits.items():
            administration.create(self.operator, name, limit, active=True, active_slots=0, decay=0.0)

    @property
    def operator(self) -> Engine:
        return self.processes[0].engine

    @rule(who=st.integers(0, 2), names=name_sets, slots=st.integers(1, 3), short_way=st.booleans())
    def acquire(self, who: int, names: tuple[str, ...], slots: int, short_way: bool) -> None:
        process = self.processes[who]
        request = Request(names, slots)
        mine = all(self.held(name) + slots <= self.limits[name] for name in names)
        turn = not any(set(names) & set(other.names) for other in self.queue())
        occupancy = process.engine.take_at_once(request, "model") if short_way else None
        party = process.engine.new_party("model")
        try:
            answer = occupancy or process.engine.ask(request, party, lambda: SilentMailbox(self.directory))
        except ConcurrencySlotAcquisitionError:
            assert any(0 < self.limits[name] < slots for name in names)
            return
        if isinstance(answer, Occupancy):
            assert mine, "admitted without room"
            assert turn, "admitted before others who came first"
            process.holds.append((request, answer))
        else:
            assert isinstance(answer, Waiting)
            assert not (mine and turn), "made to wait although there was room and nobody before it"
            process.waits.append((request, party, answer))

    @rule(who=st.integers(0, 2), which=st.integers(0, 10), short_way=st.booleans())
    def release(self, who: int, which: int, short_way: bool) -> None:
        process = self.processes[who]
        if process.holds:
            _, occupancy = process.holds.pop(which % len(process.holds))
            if not (short_way and process.engine.give_back_at_once(occupancy)):
                process.engine.give_back(occupancy)

    @rule(who=st.integers(0, 2), names=name_sets)
    def try_once(self, who: int, names: tuple[str, ...]) -> None:
        process = self.processes[who]
        request = Request(names, 1)
        answer = process.engine.ask(request, process.engine.new_party("model"), None)
        if isinstance(answer, Occupancy):
            process.holds.append((request, answer))
        else:
            assert isinstance(answer, Refused)

    @rule(who=st.integers(0, 2), which=st.integers(0, 10))
    def give_up(self, who: int, which: int) -> None:
        process = self.processes[who]
        if process.waits:
            _, _, waiting = process.waits.pop(which % len(process.waits))
            process.engine.withdraw(waiting)

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 5))
    def update(self, name: str, limit: int) -> None:
        self.limits[name] = limit
        administration.update(self.operator, name, name=None, limit=limit, active=None, active_slots=None, decay=None)

    @rule(who=st.integers(1, 2))
    def kill(self, who: int) -> None:
        """The kernel closes what the process had open; a newcomer takes its place."""
        dead = self.processes[who]
        assert dead.engine.owner is not None
        dead.engine.owner.abandon()
        dead.engine.database.close()
        dead.engine.disown()
        self.processes[who] = Process(self.directory, self.clock)  # its opening finds the dead one

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: hasattr(self, "processes"))
    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        for process in self.processes:
            process.collect()
        check_store(self.directory)
        shown = {limit.name: limit.active_slots for limit in administration.read_all(self.operator)}
        assert shown == {name: self.held(name) for name in NAMES}
        waiting = [waiter.names for waiter in administration.waiters(self.operator, None)]
        assert waiting == [request.names for request in self.queue()]

        self.nobody_first_in_line_waits_while_there_is_room()

    def nobody_first_in_line_waits_while_there_is_room(self) -> None:
        for position, request in enumerate(self.queue()):
            before = self.queue()[:position]
            first = not any(set(request.names) & set(other.names) for other in before)
            room = all(self.held(name) + request.slots <= self.limits[name] for name in request.names)
            assert not (first and room), f"{request} waits for nothing"

    def held(self, name: str) -> int:
        return sum(request.slots for process in self.processes for request, _ in process.holds if name in request.names)

    def queue(self) -> list[Request]:
        entries = [(waiting.ticket, request) for process in self.processes for request, _, waiting in process.waits]
        return [request for _, request in sorted(entries, key=lambda entry: entry[0])]

    def teardown(self) -> None:
        for process in getattr(self, "processes", []):
            process.engine.disown()
            process.engine.close()
        shutil.rmtree(self.directory)


def _fast_directory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


LimiterMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLimiter = LimiterMachine.TestCase
