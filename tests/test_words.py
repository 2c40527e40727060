"""What newcomers are told: where things are, who is in the way, and what to do about it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import localconc
from localconc import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    DeadlockError,
    create_limit,
    delete_limit,
    ensure_limit,
    pause_limit,
    read_holders,
    read_waiters,
    update_limit,
)
from localconc import asyncio as asynchronous
from localconc._engine.core import arguments
from localconc.sync import acquire, concurrency
from localconc.testing import assert_no_leaks
from tests.kit.command_line import as_json, fails, holding, ok
from tests.kit.command_line import localconc as run_localconc
from tests.kit.processes import wait_until

# ---- where things are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["concurrency", "rate_limit", "acquire"])
def test_an_import_of_a_call_from_the_package_says_where_it_is(name: str) -> None:
    for find in (lambda: exec(f"from localconc import {name}"), lambda: getattr(localconc, name)):
        with pytest.raises(
            (ImportError, AttributeError), match=rf"'{name}' of its own: import it from localconc\.sync .*\.asyncio"
        ):
            find()
    assert not hasattr(localconc, name)


def test_an_import_of_something_else_fails_as_always() -> None:
    with pytest.raises(ImportError, match="cannot import name 'concurency' from 'localconc'"):
        exec("from localconc import concurency")


@pytest.mark.parametrize("name", ["sync", "asyncio", "limits", "events", "errors", "testing"])
def test_a_module_of_the_package_is_found_by_its_name(name: str) -> None:
    assert getattr(localconc, name) is sys.modules[f"localconc.{name}"]


def test_an_occupancy_shows_what_is_for_people() -> None:
    with concurrency("db", limit=1) as occupancy:
        shown = {name for name in dir(occupancy) if not name.startswith("_")}
    assert shown == {"acquired_at", "limits", "numbers", "numbers_of", "release", "slots", "waited_seconds"}


# ---- the other face --------------------------------------------------------------------------------------------------


def test_a_block_of_the_other_face_says_which_with_it_needs() -> None:
    async def block_in_a_task() -> None:
        async with concurrency("db", limit=1):
            pass

    async def handle_in_a_task() -> None:
        async with acquire("db", limit=1):
            pass

    async def handle_in_a_plain_block() -> None:
        with await asynchronous.acquire("db", limit=1):
            pass

    with pytest.raises(TypeError, match=r"localconc\.asyncio\.concurrency: use `async with`"):
        asynchronous.concurrency("db").__enter__()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"localconc\.sync\.concurrency: use `with`"):
        asyncio.run(block_in_a_task())
    with pytest.raises(TypeError, match=r"localconc\.sync: use `with`"):
        asyncio.run(handle_in_a_task())
    with pytest.raises(TypeError, match=r"localconc\.asyncio: use `async with`"):
        asyncio.run(handle_in_a_plain_block())
    wait_until(lambda: read_holders() == [])  # the background releases what was dropped


@pytest.mark.parametrize("concurrency", [concurrency, asynchronous.concurrency])
def test_a_call_shows_its_names(concurrency: Any) -> None:
    assert repr(concurrency(["a", "b"], 2)) == "concurrency('a', 'b', occupy=2)"
    assert repr(concurrency(None)) == "concurrency(None, occupy=1)"


# ---- who is in the way -----------------------------------------------------------------------------------------------


def timed_out(name: str, **options: Any) -> str:
    with pytest.raises(AcquireConcurrencySlotTimeoutError) as caught:
        acquire(name, timeout_seconds=0, **options)
    return str(caught.value).partition(": ")[2]


def test_a_handle_that_waits_for_its_own_thread_is_told_so() -> None:
    with concurrency("db", limit=1, label="outer"):
        assert timed_out("db").startswith("'db': 1 of 1 in use, held by this very thread or task (MainThread) 'outer'")
        others: list[str] = []
        thread = threading.Thread(target=lambda: others.append(timed_out("db")))
        thread.start()
        thread.join()
    assert others[0].startswith("'db': 1 of 1 in use, held by this process, thread MainThread 'outer'")


def test_a_handle_that_waits_for_its_own_task_is_told_so() -> None:
    async def main() -> str:
        async with asynchronous.concurrency("db", limit=1):
            with pytest.raises(TimeoutError) as caught:
                await asynchronous.acquire("db", timeout_seconds=0)
        return str(caught.value)

    assert "held by this very thread or task (Task-" in asyncio.run(main())


def test_a_handle_belongs_to_no_thread_in_particular() -> None:
    with acquire("db", limit=1):
        assert "held by this process, thread MainThread for" in timed_out("db")


def test_slots_that_an_operator_set_are_told_as_such() -> None:
    create_limit("db", 2, active_slots=1)
    with concurrency("db"):
        assert timed_out("db").endswith(", 1 of them set by an operator; nobody ahead")


def test_a_deadlock_names_labels() -> None:
    with (
        concurrency("db", limit=1, label="outer"),
        pytest.raises(DeadlockError, match=r"\(MainThread\) 'inner' holds 'db' \(1 slot\(s\) 'outer' since .* waits"),
    ):
        concurrency("db", label="inner").__enter__()


def test_a_leak_is_told_with_its_label() -> None:
    with concurrency("db", limit=1, label="outer"), pytest.raises(AssertionError, match=r"MainThread'\) 'outer' since"):
        assert_no_leaks()


# ---- what to do ------------------------------------------------------------------------------------------------------


def test_a_strict_call_says_what_to_do_about_each_limit() -> None:
    ensure_limit("off", 1, active=False)
    with pytest.raises(ConcurrencySlotAcquisitionError) as caught:
        acquire(["missing", "off"], strict=True)
    assert str(caught.value) == (
        "strict=True, but these limits are missing or inactive: 'missing', 'off'. Create 'missing' with "
        "localconc.ensure_limit, or pass limit=N to the call. Enable 'off' with localconc.update_limit(…, active=True)."
    )


@pytest.mark.parametrize("value", [2, -1, "yes", None, 1.0])
def test_a_flag_is_true_or_false(value: Any) -> None:
    with pytest.raises(TypeError, match=f"strict must be True or False, not {value!r}"):
        arguments.flag("strict", value)


def test_a_pause_that_is_too_long_is_told_the_bound_in_plain_figures() -> None:
    create_limit("api", 1)
    with pytest.raises(ValueError, match="seconds must be above 0 and at most 2592000, but is 2592001"):
        pause_limit("api", 2_592_001)
    assert "TIME must be above 0 and at most 30 days, but is '31d'" in fails("pause", "api", "31d", status=2)


WAITER = """
from localconc.sync import concurrency
with concurrency(["db", "other"], limit={limit}) as occupancy:
    print(occupancy)
"""


@pytest.mark.parametrize(
    ("change", "limit", "told"),
    [
        (lambda: delete_limit("db"), None, "localconc: the limit 'db' is not configured, so it is not enforced."),
        (lambda: update_limit("db", active=False), None, ""),
        (lambda: update_limit("db", limit=2), None, ""),
        (lambda: update_limit("db", limit=2), 1, ""),
    ],
)
def test_a_process_that_waits_warns_of_its_own_call_and_the_one_that_changes_a_limit_does_not(
    caplog: pytest.LogCaptureFixture, change: Callable[[], object], limit: int | None, told: str
) -> None:
    create_limit("db", 1)
    create_limit("other", 1)
    with concurrency("db"):
        program = [sys.executable, "-c", WAITER.format(limit=limit)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiter:
            wait_until(lambda: read_waiters("db"))
            change()
            printed, warned = waiter.communicate(timeout=30)
    assert "1 slot(s)" in printed
    assert caplog.messages == []
    assert warned.startswith(told)
    assert bool(warned) == bool(told)


# ---- in a shell ------------------------------------------------------------------------------------------------------


def test_all_limits_that_a_command_lacks_are_named_at_once() -> None:
    create_limit("database", 1)
    create_limit("gpu", 1)
    said = fails("run", "databse,gpu,telescope", "--", "true", status=1)
    assert said == (
        "localconc: There is no limit 'databse'; did you mean 'database'? There is no limit 'telescope'. "
        "--limit N makes them, --allow-missing goes ahead without them"
    )


def test_where_the_environment_is_strict_a_disabled_limit_refuses_in_the_words_of_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCALCONC_STRICT", "1")
    create_limit("gpu", 1)
    update_limit("gpu", active=False)
    said = "The limit 'gpu' is disabled: enforce it with localconc enable gpu, or unset LOCALCONC_STRICT"
    assert said in fails("run", "gpu", "--", "echo", "ran", status=1)
    assert run_localconc("run", "gpu", "--allow-missing", "--", "true").returncode == 0


def test_two_commands_that_disagree_are_told_how_to_end_it_in_a_shell() -> None:
    ok("run", "two words", "--limit", "1", "--", "true")
    disagreed = run_localconc("run", "two words", "--limit", "2", "--", "true")
    assert disagreed.stderr == (
        "localconc: warning: two calls disagree about the limit 'two words'; the first one counts: limit=2 in this "
        "call is ignored, the limit has 1. Make the calls agree, or declare the limit with "
        "localconc ensure 'two words' --limit N.\n"
    )
    ok("ensure", "two words", "--limit", "1")
    ok("run", "two words", "--limit", "2", "--", "true")


def test_a_name_in_capitals_is_near_the_same_one_in_small_letters() -> None:
    create_limit("gpu", 1)
    assert "There is no limit 'GPU'; did you mean 'gpu'?" in fails("ls", "GPU", status=1)
    assert "Did you mean 'ls'?" in fails("LS", status=2)


@pytest.mark.parametrize("command", ["run", "rate"])
def test_the_help_of_a_call_says_that_limit_makes_a_missing_one(command: str) -> None:
    assert "If there is no such limit, make it" in " ".join(ok(command, "--help").split())


def test_every_command_that_the_help_of_label_names_shows_labels() -> None:
    listed = re.search(r"What ([\w, ]+) show beside the command", " ".join(ok("run", "--help").split()))
    assert listed is not None
    create_limit("gpu", 1)
    with holding("gpu", options=("--label", "seed 1")):
        for command in re.findall(r"\w+", listed[1].replace(" and ", ", ")):
            assert "seed 1" in ok(command, *(["gpu"] if command == "inspect" else [])), command


def test_reset_tells_labels() -> None:
    create_limit("gpu", 2)
    with holding("gpu", options=("--label", "seed 1")):
        assert " 'seed 1', 1 slot; it still runs" in ok("reset", "gpu", "--yes")
    with holding("gpu", options=("--label", "seed 2")):
        (forgotten,) = as_json("reset", "gpu")["forgotten"]
    assert forgotten["label"] == "seed 2"


# ---- who insists on a limit ------------------------------------------------------------------------------------------


def test_a_refusal_by_the_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCONC_STRICT", "1")
    with pytest.raises(ConcurrencySlotAcquisitionError, match=r"strict=True by LOCALCONC_STRICT, but .*pass limit=N"):
        concurrency("missing").__enter__()


def test_a_strict_call_that_passed_a_limit_is_told_what_else_it_takes() -> None:
    with pytest.raises(ConcurrencySlotAcquisitionError, match="pass create_if_missing=True"):
        concurrency("missing", limit=2, create_if_missing=False, strict=True).__enter__()


def test_an_age_is_told_to_the_millisecond() -> None:
    with concurrency("db", limit=1), pytest.raises(AcquireConcurrencySlotTimeoutError) as caught:
        concurrency("db", timeout_seconds=0).__enter__()
    assert re.search(r" for (less than 1 ms|0\.\d{1,3} s)", str(caught.value))
