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

from localconc._engine.acquisitions import Queued, Refused
from localconc._engine.core.calls import Request
from localconc._engine.engine import Engine
from localconc._engine.holdings import Handle
from localconc._engine.operations import limits as operations
from localconc._engine.operations import reading
from localconc.errors import ConcurrencySlotAcquisitionError
from tests.kit.clocks import ManualClock
from tests.kit.engines import SilentNotifier, kill, silent_engine
from tests.kit.invariants import check_store
from tests.kit.processes import wait_until

NAMES = ("a", "b")
name_sets = st.sets(st.sampled_from(NAMES), min_size=1).map(lambda names: tuple(sorted(names)))


class Process:
    """An engine with what it holds and waits for, oldest first."""

    def __init__(self, directory: Path, clock: ManualClock) -> None:
        self.engine = silent_engine(directory, clock)
        self.engine.store.database.ensure_open()
        assert self.engine.membership.owner is not None
        self.mailbox = self.engine.mailboxes.take(self.engine.membership.owner)
        self.holds: list[tuple[Request, Handle]] = []
        self.waits: list[tuple[Request, Handle, Queued]] = []

    def take_sent(self) -> list[tuple[str, tuple[int, int, float, float]]]:
        notifier = self.engine._notifier
        assert isinstance(notifier, SilentNotifier)
        sent, notifier.sent = notifier.sent, []
        return sent

    def collect(self, sent: list[tuple[str, tuple[int, int, float, float]]]) -> None:
        """Accept what the wakeups prove, then look after each request that waits, as its thread would."""
        for entry in list(self.waits):
            request, handle, queued = entry
            told = [wakeup for address, wakeup in sent if address == queued.mailbox.address and wakeup[0] == handle.serial]
            accepted = any(self.engine.acquisitions.accept_wakeup(request, queued, handle, wakeup) for wakeup in told)
            if not accepted and self.engine.queued.check(queued).is_waiting:
                continue
            self.waits.remove(entry)
            if accepted:
                self.holds.append((request, handle))
                continue
            with contextlib.suppress(ConcurrencySlotAcquisitionError):  # the limit was lowered below it
                assert self.engine.queued.accept(request, queued, handle) is handle
                self.holds.append((request, handle))


class LimiterMachine(RuleBasedStateMachine):
    """The limits `a` and `b`, three processes, and a queue in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="model-", dir=_fast_directory()))
        self.clock = ManualClock()
        self.wakeups_get_lost = True

    @initialize(limits=st.tuples(st.integers(1, 4), st.integers(1, 4)))
    def begin(self, limits: tuple[int, int]) -> None:
        self.processes = [Process(self.directory, self.clock) for _ in range(3)]
        self.limits = dict(zip(NAMES, limits, strict=True))
        for name, limit in self.limits.items():
            operations.create(self.operator, name, limit, active=True, active_slots=0, decay=0.0)

    @property
    def operator(self) -> Engine:
        return self.processes[0].engine

    @rule(who=st.integers(0, 2), names=name_sets, slots=st.integers(1, 3), fast=st.booleans())
    def acquire(self, who: int, names: tuple[str, ...], slots: int, fast: bool) -> None:
        process = self.processes[who]
        request = Request(names, slots)
        has_room = all(self.held(name) + slots <= self.limits[name] for name in names)
        is_first = not any(set(names) & set(other.names) for other in self.queue())
        acquisitions = process.engine.acquisitions
        outcome: Handle | Queued | Refused | None = acquisitions.acquire_fast(request, "model", 0) if fast else None
        handle = outcome or process.engine.holdings.begin("model", "", 0)
        try:
            outcome = outcome or acquisitions.try_acquire(request, handle, process.mailbox)
        except ConcurrencySlotAcquisitionError:
            process.engine.holdings.undo(handle)
            assert any(0 < self.limits[name] < slots for name in names)
            return
        if isinstance(outcome, Handle):
            assert has_room, "admitted without room"
            assert is_first, "admitted before others who came first"
            process.holds.append((request, outcome))
        else:
            assert isinstance(outcome, Queued)
            assert not (has_room and is_first), "made to wait although there was room and nobody before it"
            process.waits.append((request, handle, outcome))

    @rule(who=st.integers(0, 2), which=st.integers(0, 10), fast=st.booleans())
    def release(self, who: int, which: int, fast: bool) -> None:
        process = self.processes[who]
        if process.holds:
            _, handle = process.holds.pop(which % len(process.holds))
            if not (fast and process.engine.acquisitions.release_fast(handle)):
                process.engine.acquisitions.release(handle)

    @rule(who=st.integers(0, 2), names=name_sets)
    def try_once(self, who: int, names: tuple[str, ...]) -> None:
        process = self.processes[who]
        request = Request(names, 1)
        handle = process.engine.holdings.begin("model", "", 0)
        outcome = process.engine.acquisitions.try_acquire(request, handle, None)
        if isinstance(outcome, Handle):
            process.holds.append((request, outcome))
        else:
            assert isinstance(outcome, Refused)
            process.engine.holdings.undo(handle)

    @rule(who=st.integers(0, 2), which=st.integers(0, 10), in_time=st.booleans())
    def give_up(self, who: int, which: int, in_time: bool) -> None:
        """Leave the queue at the end of the time-out, or because the call was interrupted."""
        process = self.processes[who]
        if process.waits:
            request, handle, queued = process.waits.pop(which % len(process.waits))
            if in_time:
                process.engine.queued.give_up(queued, request.slots)
            process.engine.holdings.undo(handle)

    @rule(who=st.integers(0, 2), which=st.integers(0, 10))
    def forget(self, who: int, which: int) -> None:
        """Drop a block that holds slots without leaving it."""
        process = self.processes[who]
        if process.holds:
            _, handle = process.holds.pop(which % len(process.holds))
            serial = handle.serial
            del handle
            wait_until(lambda: serial not in process.engine.holdings.grants)

    @rule(lost=st.booleans())
    def lose_wakeups(self, lost: bool) -> None:
        self.wakeups_get_lost = lost

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 5))
    def update(self, name: str, limit: int) -> None:
        self.limits[name] = limit
        operations.update(self.operator, name, name=None, limit=limit, active=None, active_slots=None, decay=None)

    @rule(who=st.integers(1, 2))
    def kill(self, who: int) -> None:
        """The kernel closes what the process had open; a newcomer takes its place."""
        dead = self.processes[who]
        kill(dead.engine)
        self.processes[who] = Process(self.directory, self.clock)
        reading.notice_deaths(self.operator)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: hasattr(self, "processes"))
    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        sent = [wakeup for process in self.processes for wakeup in process.take_sent()]
        for process in self.processes:
            process.collect([] if self.wakeups_get_lost else sent)
        check_store(self.directory)
        shown = {limit.name: limit.active_slots for limit in reading.read_all(self.operator)}
        assert shown == {name: self.held(name) for name in NAMES}
        waiting = [waiter.names for waiter in reading.waiters(self.operator, None)]
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
        entries = [(queued.ticket, request) for process in self.processes for request, _, queued in process.waits]
        return [request for _, request in sorted(entries, key=lambda entry: entry[0])]

    def teardown(self) -> None:
        for process in getattr(self, "processes", []):
            process.engine.holdings.forget_all()
            process.engine.close()
        shutil.rmtree(self.directory)


def _fast_directory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


LimiterMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLimiter = LimiterMachine.TestCase
