"""Whoever waits for the process or the task that started it is warned; requests that wait for each other are told."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localconc import asyncio as of_tasks
from localconc import create_limit, ensure_limit, read_waiters, update_limit
from localconc._engine.acquiring import parents
from localconc._engine.acquiring.parents import FIRST_AFTER_SECONDS, ParentChecks
from localconc.sync import acquire, concurrency
from tests.kit.command_line import localconc, ok
from tests.kit.processes import wait_until
from tests.kit.tasks import until, until_waiting

_CHILD = """
import logging
from localconc.sync import concurrency
logging.basicConfig(level=logging.WARNING)
try:
    with concurrency("gpu", timeout_seconds=1.5): pass
except TimeoutError: pass
"""

#: How long the others wait at most, should the warning not come.
WAIT_SECONDS = 1.5


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "localconc_kind", "") == "parent"]


async def _use() -> None:
    async with of_tasks.concurrency("gpu"):
        pass


def test_a_process_that_waits_for_the_one_that_started_it_is_warned() -> None:
    ensure_limit("gpu", 1)
    with concurrency("gpu"):
        run = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr.count("the process that started this one") == 1
    assert f"pid {os.getpid()}" in run.stderr
    assert "'gpu'" in run.stderr


def test_a_task_that_waits_for_the_task_that_started_it_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    ensure_limit("gpu", 1)

    async def use() -> None:
        async with of_tasks.concurrency("gpu", timeout_seconds=WAIT_SECONDS):
            pass

    async def start() -> None:
        async with of_tasks.concurrency("gpu"):
            with pytest.raises(TimeoutError):
                await asyncio.create_task(use())

    with caplog.at_level(logging.WARNING, "localconc"):
        asyncio.run(start())
    assert len(_warnings(caplog)) == 1
    assert "the task that started this one" in _warnings(caplog)[0]


def test_a_task_that_waits_for_its_parent_is_warned_though_another_task_began_to_wait_just_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ensure_limit("gpu", 1)

    async def use() -> None:
        with pytest.raises(TimeoutError):
            async with of_tasks.concurrency("gpu", timeout_seconds=WAIT_SECONDS):
                pass

    async def hold(inside: asyncio.Event, go: asyncio.Event) -> None:
        async with of_tasks.concurrency("gpu"):
            inside.set()
            await go.wait()
            await asyncio.create_task(use())

    async def start() -> None:
        inside, go = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold(inside, go))
        await inside.wait()
        another = asyncio.create_task(use())
        await until_waiting(1)
        go.set()
        await asyncio.gather(holder, another)

    with caplog.at_level(logging.WARNING, "localconc"):
        asyncio.run(start())
    assert len(_warnings(caplog)) == 1


def test_a_task_is_warned_though_another_one_that_was_to_look_for_both_has_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parents, "LATER_AFTER_SECONDS", FIRST_AFTER_SECONDS + 0.3)
    ensure_limit("gpu", 1)

    async def start() -> None:
        async with of_tasks.concurrency("gpu"):
            first = asyncio.create_task(_use())
            await until_waiting(1)
            second = asyncio.create_task(_use())
            await until_waiting(2)
            first.cancel()
            await until(lambda: bool(_warnings(caplog)))
        await second

    with caplog.at_level(logging.WARNING, "localconc"):
        asyncio.run(start())
    assert len(_warnings(caplog)) == 1


def test_of_a_crowd_of_tasks_that_begins_to_wait_together_only_one_looks_for_its_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []
    begin = ParentChecks.begin
    monkeypatch.setattr(ParentChecks, "begin", lambda self, *asked: looks.append(asked) or begin(self, *asked))
    monkeypatch.setattr(parents, "EVERY_SECONDS", 60.0)  # they begin together, however slow the machine is
    ensure_limit("gpu", 1)

    async def start() -> None:
        async with of_tasks.concurrency("gpu"):
            crowd = [asyncio.create_task(_use()) for _ in range(20)]
            await until(lambda: bool(looks))
            await asyncio.sleep(FIRST_AFTER_SECONDS / 2)  # the others would have looked by then
        await asyncio.gather(*crowd)

    asyncio.run(start())
    assert len(looks) == 1


def test_a_task_that_waits_for_another_one_is_not_warned(caplog: pytest.LogCaptureFixture) -> None:
    ensure_limit("gpu", 1)

    async def start() -> None:
        inside = asyncio.Event()

        async def hold() -> None:
            async with of_tasks.concurrency("gpu"):
                inside.set()
                await waiting

        waiting = asyncio.create_task(use(inside))
        await asyncio.gather(hold(), waiting)

    async def use(inside: asyncio.Event) -> None:
        await inside.wait()
        with pytest.raises(TimeoutError):
            async with of_tasks.concurrency("gpu", timeout_seconds=WAIT_SECONDS):
                pass

    with caplog.at_level(logging.WARNING, "localconc"):
        asyncio.run(start())
    assert not _warnings(caplog)


def test_the_doctor_and_inspect_tell_of_requests_that_wait_for_themselves() -> None:
    """Nobody closed this circle by a request: an operator lowered the limit."""
    ensure_limit("gpu", 2)
    other = acquire("gpu")

    def nest() -> None:
        with concurrency("gpu"), concurrency("gpu"):
            pass

    thread = threading.Thread(target=nest, name="nesting")
    thread.start()
    try:
        wait_until(lambda: len(read_waiters("gpu")) == 1)
        assert "Deadlock" not in ok("inspect", "gpu")
        update_limit("gpu", limit=1)
        other.release()

        examined = localconc("doctor", "-o", "json")
        found = {one["check"]: one for one in json.loads(examined.stdout)["findings"]}
        assert "nesting" in found["deadlocks"]["text"]
        assert found["deadlocks"]["state"] == "wrong"
        assert "Deadlock: " in ok("inspect", "gpu")
        assert json.loads(ok("inspect", "gpu", "-o", "json"))["deadlocks"]
    finally:
        update_limit("gpu", limit=2)
        thread.join(timeout=60)
    assert not thread.is_alive()


def test_who_finds_no_slot_is_told_of_limits_in_another_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALCONC_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = tmp_path / ".local" / "share"
    monkeypatch.setenv("XDG_DATA_HOME", str(usual))
    create_limit("gpu", 1)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "snap"))
    create_limit("gpu", 0)

    with (
        pytest.raises(TimeoutError, match="other limits in another home") as raised,
        concurrency("gpu", timeout_seconds=0),
    ):
        pass
    assert str(usual / "localconc") in str(raised.value)

    monkeypatch.setenv("LOCALCONC_HOME", str(tmp_path / "chosen"))
    create_limit("gpu", 0)
    with pytest.raises(TimeoutError) as raised, concurrency("gpu", timeout_seconds=0):
        pass
    assert "another home" not in str(raised.value)
