"""Marked tests that have to wait, and marked tests whose limit is not declared."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from localconc import ensure_limit, read_limit
from localconc.sync import Occupancy, concurrency
from localconc.testing import hold, marked
from tests.kit.pytest_runs import ALONE, WORKERS, quick_runs  # noqa: F401

PATIENCE_SECONDS = 60.0

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture
def shared_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process uses the home that the runs under test share."""
    directory = tmp_path / "shared"
    monkeypatch.setenv("LOCALCONC_HOME", str(directory))
    return directory


# ---- limits that nobody declared -------------------------------------------------------------------------------------

UNDECLARED = """
    import pytest

    @pytest.mark.concurrency("database")
    def test_limited(): pass

    @pytest.mark.rate_limit("database", slot_decay_per_second=1)
    def test_rated(): pass

    @pytest.mark.concurrency("database", strict=False)
    def test_that_does_not_insist(): pass
"""


@pytest.mark.parametrize("state", ["missing", "placeholder", "inactive"])
def test_a_marker_on_a_limit_that_nobody_declared_fails_its_test(
    pytester: pytest.Pytester, shared_home: Path, state: str
) -> None:
    if state == "placeholder":
        with concurrency("database"):
            pass
    if state == "inactive":
        ensure_limit("database", 3, active=False)
    pytester.makepyfile(UNDECLARED)
    result = pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}")
    result.assert_outcomes(passed=1, errors=2)
    said = f"no limit 'database' {'is active' if state == 'inactive' else 'exists'} in {shared_home}"
    result.stdout.fnmatch_lines_random(
        [
            f"ERROR *::test_limited - Failed: *@pytest.mark.concurrency of *::test_limited: {said}*",
            f"ERROR *::test_rated - Failed: *@pytest.mark.rate_limit of *::test_rated: {said}*",
        ]
    )


def test_the_words_say_how_to_declare_the_limit(pytester: pytest.Pytester, shared_home: Path) -> None:
    pytester.makepyfile(UNDECLARED)
    output = pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}").stdout.str()
    assert "Give the marker limit=…" in output
    assert f"LOCALCONC_HOME={shared_home} localconc create 'database' --limit …" in output
    assert "traceback" not in output  # pytest's own words on a traceback without entries


def test_a_bad_number_in_a_marker_is_told_with_the_marker_and_the_test(
    pytester: pytest.Pytester, shared_home: Path
) -> None:
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.concurrency("database", limit=True)
        def test_limited(): pass

        @pytest.mark.rate_limit("database", limit=1, slot_decay_per_second=-1)
        def test_rated(): pass
        """
    )
    result = pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "TypeError: @pytest.mark.concurrency of test_it.py::test_limited: limit must be a whole number, not True",
            "ValueError: @pytest.mark.rate_limit of test_it.py::test_rated: slot_decay_per_second must be *",
        ]
    )


def test_a_limit_that_was_declared_before_needs_no_number_in_the_marker(
    pytester: pytest.Pytester, shared_home: Path
) -> None:
    ensure_limit("database", 1, slot_decay_per_second=0.001)
    pytester.makepyfile(UNDECLARED)
    result = pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}", "-k", "test_limited")
    result.assert_outcomes(passed=1)
    assert read_limit("database").limit == 1


def test_a_marker_with_a_number_makes_a_placeholder_a_limit(pytester: pytest.Pytester, shared_home: Path) -> None:
    with concurrency("database"):
        pass
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("database", limit=3)
        def test_limited(): pass
        """
    )
    pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}").assert_outcomes(passed=1)
    assert (read_limit("database").limit, read_limit("database").active) == (3, True)


# ---- waiting ---------------------------------------------------------------------------------------------------------

LIMITED = """
    import pytest

    @pytest.mark.concurrency("database", limit=1)
    def test_limited():
        print("captured")
"""

#: In place of the two seconds after which a test says that it waits.
IMPATIENT = "from localconc.testing import marked; marked.NOTICE_SECONDS = 0.05"


def watched_run(pytester: pytest.Pytester, *arguments: object) -> tuple[subprocess.Popen[str], Queue[str]]:
    """Start a run; its lines come in a queue, whichever stream they were written to."""
    process = pytester.popen(
        [sys.executable, "-m", "pytest", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: Queue[str] = Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True).start()
    return process, lines


def next_line_with(lines: Queue[str], words: str) -> str:
    while words not in (line := lines.get(timeout=PATIENCE_SECONDS)):
        pass
    return line


@pytest.mark.parametrize("arguments", [ALONE, WORKERS, (*ALONE, "-s")], ids=["alone", "workers", "uncaptured"])
def test_a_test_that_waits_says_so_once(
    pytester: pytest.Pytester, shared_home: Path, arguments: tuple[str, ...]
) -> None:
    pytester.makeconftest(IMPATIENT)
    pytester.makepyfile(test_it=LIMITED)
    with hold("database", limit=1) as held:
        process, lines = watched_run(pytester, *arguments, f"--localconc-home={shared_home}")
        said = next_line_with(lines, "waits for")
    assert said.startswith("localconc: test_it.py::test_limited waits for 'database': 1 of 1 in use, held by ")
    assert f"(pid {held.pid}, " in said
    assert process.wait(PATIENCE_SECONDS) == 0
    next_line_with(lines, "1 passed")
    assert not any("waits for" in line for line in lines.queue)


def test_tests_that_wait_for_each_other_are_named(pytester: pytest.Pytester, shared_home: Path) -> None:
    """By the name of the test, since the command of a worker of xdist says nothing."""
    pytester.makeconftest(IMPATIENT)
    pytester.makepyfile(
        test_it="""
        import pathlib, pytest, time

        @pytest.mark.concurrency("database", limit=1)
        @pytest.mark.parametrize("number", range(2))
        def test_limited(number):
            deadline = time.monotonic() + 60
            while not pathlib.Path("go on").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        """
    )
    process, lines = watched_run(pytester, *WORKERS, f"--localconc-home={shared_home}")
    said = next_line_with(lines, "waits for")
    match = re.search(r"test_it.py::test_limited\[(.)\] waits .* held by test_it.py::test_limited\[(.)\] \(pid", said)
    assert match is not None, said
    assert set(match.groups()) == {"0", "1"}
    (pytester.path / "go on").touch()
    assert process.wait(PATIENCE_SECONDS) == 0


def test_a_test_that_does_not_wait_says_nothing(pytester: pytest.Pytester, shared_home: Path) -> None:
    pytester.makepyfile(LIMITED)
    result = pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}")
    result.assert_outcomes(passed=1)
    assert "waits for" not in result.stdout.str() + result.stderr.str()


# ---- time-outs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_option", [True, False])
def test_a_test_that_waits_for_too_long_fails(pytester: pytest.Pytester, shared_home: Path, is_option: bool) -> None:
    pytester.makepyfile(LIMITED)
    if not is_option:
        pytester.makeini("[pytest]\nlocalconc_timeout = 0.05")
    option = ["--localconc-timeout=0.05"] if is_option else []
    with hold("database", limit=1) as held:
        result = pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}", *option)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "AcquireConcurrencySlotTimeoutError: *'database': 1 of 1 in use, held by pid "
            f"{held.pid} *(localconc_timeout is 0.05 s)"
        ]
    )


def test_one_timeout_covers_all_that_a_test_waits_for(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    class Recording(concurrency):
        def __init__(self, name: str, **options: Any) -> None:
            given.append(options["timeout_seconds"])
            super().__init__(name, **options)

        def __enter__(self) -> Occupancy:
            time.sleep(0.01)  # as long as it waits, at least
            return super().__enter__()

    monkeypatch.setattr(marked.sync, "concurrency", Recording)
    demands = [marked.Demand("concurrency", name, {"limit": 1}) for name in ("api", "database")]
    with ExitStack() as held:
        marked.acquire("test", demands, shared_home, 60.0, print, held)
    first, second = given
    assert first <= 60
    assert 0 < second < first - 0.005


def test_a_timeout_names_the_time_that_was_set_not_what_was_left_of_it(
    pytester: pytest.Pytester, shared_home: Path
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency(["api", "database"], limit=1)
        def test_limited(): pass
        """
    )
    with hold("database", limit=1):
        result = pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}", "--localconc-timeout", "0.05")
    result.stdout.fnmatch_lines(["*timed out after 0.05 second(s): 'database'*"])


def test_the_time_out_of_a_marker_counts_if_it_ends_earlier(pytester: pytest.Pytester, shared_home: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("database", limit=1, timeout_seconds=0)
        def test_limited(): pass
        """
    )
    with hold("database", limit=1):
        result = pytester.runpytest_subprocess(*ALONE, f"--localconc-home={shared_home}", "--localconc-timeout=60")
    result.stdout.fnmatch_lines(["*timed out after 0 second(s)*"])
    assert "localconc_timeout" not in result.stdout.str()


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_time_out_that_is_no_number_of_seconds_is_refused(pytester: pytest.Pytester, text: str) -> None:
    result = pytester.runpytest_subprocess(*ALONE, f"--localconc-timeout={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--localconc-timeout must be a number of seconds, 0 or more, not '{text}'"])
