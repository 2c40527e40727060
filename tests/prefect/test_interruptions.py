"""Calls that are interrupted lose nothing: what the server grants them all the same is released."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("httpx", reason="Prefect is not installed")

import localconc.asyncio
from localconc import ensure_limit, read_limit
from localconc._prefect import close_keepers, open_keeper
from localconc.errors import AcquireConcurrencySlotTimeoutError
from localconc.sync import concurrency
from tests.kit.processes import wait_until
from tests.prefect.faults import Gate, Wire, install, on
from tests.prefect.server import PrefectServer

TAKE = "/increment-with-lease"


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, on_server: PrefectServer) -> Iterator[Wire]:
    """The way to the server, which can fail."""
    close_keepers()
    yield install(monkeypatch)
    close_keepers()


@pytest.fixture
def limit(wire: Wire, name: str) -> str:
    """A limit of 1 that this process knows."""
    ensure_limit(name, 1)
    with concurrency(name):
        pass
    return name


def _is_free(name: str) -> bool:
    return read_limit(name).active_slots == 0


def test_slots_granted_after_the_time_out_are_released(wire: Wire, limit: str) -> None:
    gate = Gate()
    wire.after = on(TAKE, gate)
    with (
        pytest.raises(AcquireConcurrencySlotTimeoutError, match="has not answered"),
        concurrency(limit, timeout_seconds=0.3),
    ):
        pass
    gate.open()
    wait_until(lambda: _is_free(limit))
    assert len(open_keeper().leases) == 0


def test_slots_granted_after_a_cancellation_are_released(wire: Wire, limit: str) -> None:
    gate = Gate()
    wire.after = on(TAKE, gate)

    async def hold() -> None:
        async with localconc.asyncio.concurrency(limit):
            pass

    async def main() -> None:
        task = asyncio.create_task(hold())
        await asyncio.to_thread(gate.reached.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    gate.open()
    wait_until(lambda: _is_free(limit))


def test_slots_granted_to_a_closed_loop_are_released(wire: Wire, limit: str) -> None:
    gate = Gate()
    wire.after = on(TAKE, gate)
    loop = asyncio.new_event_loop()

    async def hold() -> None:
        async with localconc.asyncio.concurrency(limit):
            pass

    task = loop.create_task(hold())
    loop.call_later(0.1, loop.stop)
    loop.run_forever()
    assert gate.reached.wait(10)
    loop.close()
    gate.open()
    wait_until(lambda: _is_free(limit))
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_slots_granted_after_ctrl_c_are_released(wire: Wire, limit: str) -> None:
    gate = Gate()
    wire.after = on(TAKE, gate)
    main = threading.get_ident()

    def interrupt() -> None:
        gate.reached.wait(10)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), concurrency(limit):
        pass
    thread.join()
    gate.open()
    wait_until(lambda: _is_free(limit))


def test_ctrl_c_while_slots_are_released_releases_them(wire: Wire, limit: str) -> None:
    gate = Gate()
    main = threading.get_ident()

    def interrupt() -> None:
        gate.reached.wait(10)
        signal.pthread_kill(main, signal.SIGINT)

    wire.before = on("/decrement-with-lease", gate)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), concurrency(limit):
        pass
    thread.join()
    gate.open()
    wait_until(lambda: _is_free(limit))


@pytest.mark.timeout(60)
def test_thirty_interrupts_at_any_moment_lose_nothing(limit: str) -> None:
    main = threading.get_ident()
    armed, interrupted = threading.Event(), 0

    def interrupt() -> None:
        for step in range(30):
            armed.wait(10)
            armed.clear()
            time.sleep(step % 10 * 0.0015)
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    while interrupted < 30:
        try:
            armed.set()
            while True:
                with concurrency(limit):
                    pass
        except KeyboardInterrupt:
            interrupted += 1
    thread.join()
    gc.collect()
    wait_until(lambda: len(open_keeper().leases) == 0)
    wait_until(lambda: _is_free(limit))


def test_sixty_cancelled_tasks_lose_nothing(limit: str) -> None:
    async def hold() -> None:
        async with localconc.asyncio.concurrency(limit):
            await asyncio.sleep(0.001)

    async def main() -> None:
        tasks = [asyncio.create_task(hold()) for _ in range(60)]
        for step, task in enumerate(tasks):
            await asyncio.sleep(step % 7 * 0.002)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    wait_until(lambda: len(open_keeper().leases) == 0)
    wait_until(lambda: _is_free(limit))
