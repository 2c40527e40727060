"""Names that are not Unicode: what is only for people is made harmless, and nothing that was started is lost."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

from localconc import ensure_limit, read_holders, read_limit, read_waiters
from localconc.asyncio import concurrency as task_concurrency
from localconc.sync import concurrency
from tests.faults.programs import Cast, Program, in_line, until
from tests.kit.command_line import fails

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="arguments are Unicode there")

_NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")
_LONE_SURROGATE = "a\ud800b"


def _run(programs: Cast, *words: str, **options: object) -> Program:
    return programs.command(sys.executable, "-m", "localconc", "run", "L", *words, **options)


def test_a_command_with_an_argument_that_is_not_utf8_holds_its_slot_while_it_runs(programs: Cast) -> None:
    ensure_limit("L", 1)
    first = _run(programs, "--", "sh", "-c", 'echo "in"; read line; exit 7', "sh", _NOT_UTF8)
    assert first.hear() == "in"

    second = _run(programs, "--", "echo", "second", _NOT_UTF8)
    assert second.is_silent_for(1.0), "a second one runs beside it"
    assert [holder.slots for holder in read_holders("L")] == [1]
    first.say()

    assert second.hear().startswith("second caf")
    assert first.end()[0] == 7
    assert second.end()[0] == 0
    assert first.errors() == ""
    until(lambda: read_limit("L").active_slots == 0, "both have ended")


def test_the_name_of_a_command_that_is_not_utf8_is_shown_with_replacement_characters(
    programs: Cast, tmp_path: Path
) -> None:
    ensure_limit("L", 1)
    command = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(command)).write_text("#!/bin/sh\necho in; read line\n")
    os.chmod(command, 0o755)
    holder = _run(programs, "--", os.fsdecode(command))
    assert holder.hear() == "in"

    (shown,) = read_holders("L")

    assert "caf" in shown.command
    shown.command.encode()
    for words in (("ls",), ("inspect", "L"), ("inspect", "L", "-o", "json"), ("doctor",)):
        report = programs.command(sys.executable, "-m", "localconc", *words)
        assert report.end(30)[0] == 0, report.errors()
    holder.say()
    assert holder.end()[0] == 0


def test_a_command_that_waits_behind_another_keeps_its_status(programs: Cast, localconc_home_directory: Path) -> None:
    ensure_limit("L", 1)
    holder = programs.puppet()
    holder.must_enter("L")
    waiting = _run(programs, "--", "sh", "-c", "exit 9", "sh", _NOT_UTF8)
    until(lambda: in_line(localconc_home_directory) == 1, "it waits")
    assert [len(waiter.command) > 0 for waiter in read_waiters("L")] == [True]
    holder.leave("L")

    assert waiting.end()[0] == 9


@pytest.mark.parametrize("name", [_NOT_UTF8, _LONE_SURROGATE, "nul\0inside", ""])
def test_threads_of_any_name_acquire_and_wait(name: str, programs: Cast, localconc_home_directory: Path) -> None:
    ensure_limit("L", 1)
    outcomes: list[list[str] | Exception] = []

    def work() -> None:
        try:
            with concurrency("L", timeout_seconds=5):
                outcomes.append([holder.thread for holder in read_holders("L")])
        except Exception as error:
            outcomes.append(error)

    for _ in range(2):
        thread = threading.Thread(target=work, name=name)
        thread.start()
        thread.join(10)
    holder = programs.puppet()
    holder.must_enter("L")
    waiting = threading.Thread(target=work, name=name, daemon=True)
    waiting.start()
    until(lambda: in_line(localconc_home_directory) == 1 or len(outcomes) == 3, "it waits")
    shown = [waiter.thread for waiter in read_waiters("L")]
    holder.leave("L")
    waiting.join(10)

    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)], outcomes
    for text in [*shown, *(name for outcome in outcomes if isinstance(outcome, list) for name in outcome)]:
        text.encode()  # whoever prints it can


@pytest.mark.parametrize("name", [_NOT_UTF8, _LONE_SURROGATE])
def test_tasks_of_any_name_acquire(name: str) -> None:
    ensure_limit("L", 1)

    async def work() -> str:
        async with task_concurrency("L", timeout_seconds=5):
            return read_holders("L")[0].thread

    async def main() -> list[str]:
        return list(await asyncio.gather(*(asyncio.create_task(work(), name=name) for _ in range(3))))

    for shown in asyncio.run(main()):
        shown.encode()


@pytest.mark.parametrize(
    "command",
    [
        ("doctor",),
        ("doctor", "-o", "json"),
        pytest.param(("path",), marks=pytest.mark.sweep),
        pytest.param(("ls",), marks=pytest.mark.sweep),
        pytest.param(("create", "x", "--limit", "1"), marks=pytest.mark.sweep),
    ],
)
def test_a_home_whose_path_is_not_utf8_works(command: tuple[str, ...], programs: Cast, tmp_path: Path) -> None:
    home = os.fsdecode(os.fsencode(tmp_path) + b"/h\xf6me")
    environment = {**os.environ, "LOCALCONC_HOME": home, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    programs.python(
        "from localconc.sync import concurrency\nwith concurrency('L', limit=1): pass", env=environment
    ).finish()

    program = programs.command(sys.executable, "-m", "localconc", *command, env=environment)

    status, _ = program.end(30)
    assert "Traceback" not in program.errors()
    if command[0] != "create":
        assert status == 0, program.errors()


def test_an_error_about_a_home_whose_path_is_not_utf8_is_one_line(programs: Cast, tmp_path: Path) -> None:
    file = os.fsdecode(os.fsencode(tmp_path) + b"/f\xefle")
    Path(file).write_text("no directory")
    environment = {**os.environ, "LOCALCONC_HOME": file, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    program = programs.command(sys.executable, "-m", "localconc", "ls", env=environment)

    assert program.end(30)[0] != 0
    assert program.errors().startswith("localconc: ")
    assert "Traceback" not in program.errors()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        *(((*words, _NOT_UTF8), 1) for words in (("delete", "--yes"), ("reset", "--yes"), ("resume",), ("enable",))),
        *(((word, _NOT_UTF8), 1) for word in ("disable", "history", "stats", "timeline", "inspect", "ls")),
        (("pause", _NOT_UTF8, "3s"), 1),
        (("update", _NOT_UTF8, "--limit", "3"), 1),
        (("create", _NOT_UTF8, "--limit", "1"), 2),
        (("ensure", _NOT_UTF8, "--limit", "1"), 2),
        (("update", "L", "--name", _NOT_UTF8), 2),
    ],
)
def test_a_name_that_is_not_utf8_is_refused_in_one_line(command: tuple[str, ...], status: int) -> None:
    ensure_limit("L", 1)
    said = fails(*command, status=status)
    assert ("There is no limit 'caf\\udce9.jpg'" if status == 1 else "what UTF-8 can't encode: 'caf") in said
