"""Homes of a test's own, limits switched off, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from localconc import LimitNotFoundError, ensure_limit, home, read_holders, read_limit, read_limits, read_waiters
from localconc import asyncio as for_tasks
from localconc.errors import StoreError
from localconc.sync import concurrency, rate_limit
from localconc.testing import assert_no_leaks, disabled, hold, peak, temporary_home, virtual_clock

PATIENCE_SECONDS = 20.0


# ---- temporary_home --------------------------------------------------------------------------------------------------


def test_a_temporary_home_is_fresh_and_removed() -> None:
    before = os.environ["LOCALCONC_HOME"]
    with temporary_home() as directory:
        assert home() == directory
        assert read_limits() == []
        ensure_limit("database", 1)
        assert directory.is_dir()
    assert not directory.exists()
    assert os.environ["LOCALCONC_HOME"] == before


def test_temporary_homes_nest() -> None:
    with temporary_home() as outer:
        ensure_limit("database", 1)
        with temporary_home() as inner:
            assert inner != outer
            assert read_limits() == []
        assert [limit.name for limit in read_limits()] == ["database"]
    assert not outer.exists()


def test_children_use_the_temporary_home() -> None:
    with temporary_home():
        script = "import localconc; localconc.ensure_limit('from a child', 3)"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert read_limit("from a child").limit == 3


def test_each_call_of_a_decorated_function_has_a_home_of_its_own() -> None:
    @temporary_home()
    def limited() -> Path:
        assert read_limits() == []
        ensure_limit("database", 1)
        return home()

    @temporary_home()
    async def limited_task() -> Path:
        await asyncio.sleep(0)
        assert read_limits() == []
        ensure_limit("database", 1)
        return home()

    homes = [limited(), limited(), asyncio.run(limited_task()), asyncio.run(limited_task())]
    assert len(set(homes)) == 4
    assert not any(directory.exists() for directory in homes)


def test_a_generator_function_can_not_be_decorated() -> None:
    with pytest.raises(TypeError, match="generator"):

        @temporary_home()
        def numbers():  # type: ignore[no-untyped-def]
            yield 1


def test_a_class_can_not_be_decorated() -> None:
    with pytest.raises(TypeError, match="decorate its methods"):

        @temporary_home()
        class TestLimited:
            pass


def test_leaving_a_temporary_home_with_holders_warns_and_names_them() -> None:
    home_block, left = temporary_home(), concurrency("database", occupy=2, limit=5)
    directory = home_block.__enter__()
    left.__enter__()
    with pytest.warns(UserWarning, match=rf"'database': 2 slot.* held by pid {os.getpid()} \(this process") as caught:
        home_block.__exit__(None, None, None)
    left.__exit__(None, None, None)  # late, and harmless
    assert not directory.exists()
    assert caught[0].filename == __file__


def test_another_process_that_is_left_behind_is_named() -> None:
    home_block, block = temporary_home(), hold("database", limit=1)
    home_block.__enter__()
    held = block.__enter__()
    with pytest.warns(UserWarning, match=rf"held by pid {held.pid} \(`"):
        home_block.__exit__(None, None, None)
    block.__exit__(None, None, None)


def test_leaving_a_tidy_home_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with temporary_home(), concurrency("database", limit=1):
            pass
        with temporary_home():
            pass


def test_a_home_is_removed_when_its_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), temporary_home() as directory:  # noqa: PT012
        ensure_limit("database", 1)
        _ = 1 / 0
    assert not directory.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_leaves_the_block_keeps_its_parents_home() -> None:
    with temporary_home() as directory:
        ensure_limit("database", 1)
        block = temporary_home()
        inner = block.__enter__()
        child = os.fork()
        if child == 0:
            block.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        assert inner.is_dir()
        block.__exit__(None, None, None)
        assert directory.is_dir()


# ---- disabled --------------------------------------------------------------------------------------------------------


def test_disabled_limits_pass_and_do_not_touch_the_store() -> None:
    with temporary_home() as directory, disabled():
        for _ in range(3):
            rate_limit("api", limit=1, slot_decay_per_second=0.001, timeout_seconds=0)
        with concurrency("database", limit=1), concurrency("database", timeout_seconds=0) as occupancy:
            assert occupancy.limits == ()

        async def task() -> None:
            await for_tasks.rate_limit("api", strict=True)
            async with for_tasks.concurrency("database", limit=0):
                pass

        asyncio.run(task())
        assert list(directory.iterdir()) == []


def test_disabled_calls_still_check_their_arguments() -> None:
    with disabled():
        with pytest.raises(ValueError, match="occupy"):
            concurrency("database", occupy=0)
        with pytest.raises(ValueError, match="timeout_seconds"):
            rate_limit("api", timeout_seconds=-1)


def test_disabled_nests_and_ends() -> None:
    with temporary_home():
        ensure_limit("database", 1)
        with hold("database"):
            with disabled():
                with disabled():
                    pass
                with concurrency("database", timeout_seconds=0):
                    pass
            with pytest.raises(TimeoutError):
                concurrency("database", timeout_seconds=0).__enter__()


def test_disabled_decorates_functions_and_coroutine_functions() -> None:
    @disabled()
    def limited() -> None:
        rate_limit("api", limit=0, slot_decay_per_second=1, timeout_seconds=0)

    @disabled()
    async def limited_task() -> None:
        await for_tasks.rate_limit("api", limit=0, slot_decay_per_second=1, timeout_seconds=0)

    limited()
    asyncio.run(limited_task())
    with pytest.raises(TimeoutError):
        rate_limit("api", limit=0, slot_decay_per_second=1, timeout_seconds=0)


@pytest.mark.parametrize(("value", "passes"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_environment_switches_limits_off_in_children(value: str, passes: bool) -> None:
    with temporary_home():
        ensure_limit("database", 0)
        script = "from localconc.sync import concurrency\nwith concurrency('database', timeout_seconds=0): print('in')"
        environment = {**os.environ, "LOCALCONC_DISABLED": value}
        child = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        assert (child.stdout == "in\n") == passes, child.stderr


def test_slots_taken_before_disabled_are_given_back_in_it() -> None:
    with temporary_home():
        left = concurrency("database", limit=1)
        left.__enter__()
        with disabled():
            left.__exit__(None, None, None)
        assert_no_leaks()


# ---- assert_no_leaks -------------------------------------------------------------------------------------------------


def test_nothing_leaks_where_nothing_is_held() -> None:
    with temporary_home() as directory:
        assert_no_leaks()
        assert list(directory.iterdir()) == []  # asking does not build a store
        with concurrency("database", limit=1):
            pass
        rate_limit("api", limit=3, slot_decay_per_second=1)
        assert_no_leaks()
        assert_no_leaks("database")


def test_a_home_that_can_not_be_looked_at_is_no_home_without_leaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALCONC_HOME", str(tmp_path / ("n" * 300)))  # longer than names can be
    with pytest.raises(StoreError, match="can't be"):
        assert_no_leaks()


def test_a_leak_names_who_holds_what() -> None:
    with temporary_home(), concurrency("database", limit=3, occupy=2):
        with pytest.raises(
            AssertionError, match=rf"'database': 2 slot.*pid {os.getpid()} \(this process, thread 'Main"
        ):
            assert_no_leaks()
        ensure_limit("other", 1)
        assert_no_leaks("other")
        with pytest.raises(LimitNotFoundError):
            assert_no_leaks("missing")


def test_a_thread_that_still_waits_is_a_leak() -> None:
    with temporary_home():
        ensure_limit("database", 0)
        thread = threading.Thread(target=_take_and_leave, daemon=True)
        thread.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not read_waiters("database"):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        with pytest.raises(AssertionError, match=rf"'database': waited for by pid {os.getpid()} \(this process"):
            assert_no_leaks()
        ensure_limit("database", 1)
        thread.join(PATIENCE_SECONDS)
        assert_no_leaks()


def _take_and_leave() -> None:
    with concurrency("database"):
        pass


def test_a_process_that_died_has_leaked_nothing() -> None:
    with temporary_home(), hold("database", limit=1) as held:
        assert [holder.pid for holder in read_holders("database")] == [held.pid]
        os.kill(held.pid, 9)
        os.waitid(os.P_PID, held.pid, os.WEXITED | os.WNOWAIT)
        assert_no_leaks()


# ---- hold and peak ---------------------------------------------------------------------------------------------------


def test_hold_makes_a_limit_full_from_another_process() -> None:
    with temporary_home():
        ensure_limit("database", 3)
        with hold("database", 2) as held:
            (holder,) = read_holders("database")
            assert (holder.pid, holder.slots) == (held.pid, 2)
            assert holder.pid != os.getpid()
            with concurrency("database", timeout_seconds=0):
                pass
            with pytest.raises(TimeoutError, match=f"pid {held.pid}"):
                concurrency("database", 2, timeout_seconds=0).__enter__()
        assert_no_leaks()
        with pytest.raises(ProcessLookupError):
            os.kill(held.pid, 0)


def test_hold_holds_where_limits_are_switched_off() -> None:
    with temporary_home(), disabled(), hold("database", limit=1) as held:
        assert [holder.pid for holder in read_holders("database")] == [held.pid]


def test_hold_gives_up_when_the_limit_stays_full() -> None:
    with temporary_home(), hold("database", limit=1), pytest.raises(TimeoutError, match="1 of 1 in use"):
        hold("database", timeout_seconds=0.05).__enter__()


def test_hold_insists_on_a_limit_that_is_enforced() -> None:
    with temporary_home(), pytest.raises(Exception, match="missing or inactive") as caught:
        hold("missing").__enter__()
    assert type(caught.value).__name__ == "ConcurrencySlotAcquisitionError"


@pytest.mark.parametrize("arguments", [{"occupy": 0}, {"timeout_seconds": -1}, {"limit": -1}, {"name": "a/b"}])
def test_hold_checks_its_arguments_at_once(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        hold(**{"name": "database", **arguments})  # type: ignore[arg-type]


def test_a_body_that_fails_leaves_no_process_behind() -> None:
    with temporary_home():
        with pytest.raises(ZeroDivisionError), hold("database", limit=1) as held:
            _ = 1 / 0
        assert_no_leaks()
        with pytest.raises(ProcessLookupError):
            os.kill(held.pid, 0)


def test_killing_the_holder_is_a_crash() -> None:
    with temporary_home(), hold("database", limit=1) as held:
        held.kill()
        with concurrency("database", timeout_seconds=0):
            pass


def test_a_helper_does_not_outlive_the_process_it_helps() -> None:
    with temporary_home():
        ensure_limit("database", 1)
        script = (
            "import os\nfrom localconc.testing import hold\nheld = hold('database').__enter__()\n"
            "print(held.pid, flush=True)\nos.kill(os.getpid(), 9)"
        )
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        with concurrency("database", timeout_seconds=PATIENCE_SECONDS):
            pass


def test_peak_is_the_most_that_was_held_at_once() -> None:
    with temporary_home():
        ensure_limit("database", 5)
        assert peak("database") == 0
        with concurrency("database", 2):
            assert peak("database") == 2
            with hold("database", 2):
                pass
        with concurrency("database", 3):
            pass
        assert peak("database") == 4
        with pytest.raises(LimitNotFoundError):
            peak("missing")


def test_slots_of_rate_limit_do_not_count_as_held() -> None:
    with temporary_home():
        ensure_limit("api", 9, slot_decay_per_second=0.001)
        for _ in range(3):
            rate_limit("api")
        with concurrency("api", 2):
            assert peak("api") == 2


def test_blocks_of_no_time_count_one_by_one() -> None:
    with temporary_home(), virtual_clock() as clock:
        ensure_limit("database", 5)
        for _ in range(3):
            with concurrency("database"):
                pass
        with concurrency("database", 2):
            clock.advance(1)
            with concurrency("database"):
                pass
            clock.advance(1)
        with concurrency("database", 3):  # comes as the other leaves
            clock.advance(1)
        assert peak("database") == 3
