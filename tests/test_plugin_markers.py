"""The markers of the pytest plugin: limits on tests across xdist's workers and across runs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from localconc import ensure_limit, home, read_holders, read_limit, read_waiters
from localconc._engine import registry
from localconc.testing import hold, peak
from localconc.testing.block import environment
from tests.kit.pytest_runs import ALONE, WORKERS, quick_runs  # noqa: F401

PATIENCE_SECONDS = 60.0

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture
def shared_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process uses the home that the runs under test share."""
    directory = tmp_path / "shared"
    monkeypatch.setenv("LOCALCONC_HOME", str(directory))
    return directory


def run(pytester: pytest.Pytester, *arguments: object) -> subprocess.Popen[str]:
    with environment("LOCALCONC_HOME", str(pytester.path / "another")):
        return pytester.popen(
            [sys.executable, "-m", "pytest", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def until_waiting(names: set[str], runs: list[subprocess.Popen[str]]) -> set[int]:
    """The pids of those who wait, once there are as many processes as that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        waiters = read_waiters()
        if {waiter.names[0] for waiter in waiters} == names and len({waiter.pid for waiter in waiters}) == 2:
            return {waiter.pid for waiter in waiters}
        assert time.monotonic() < deadline, f"waiting: {waiters}"
        assert all(process.poll() is None for process in runs), runs[0].communicate()[0]
        time.sleep(0.01)


LIMITED = """
    import os, pytest
    from localconc import read_holders
    from localconc.testing.block import environment

    @pytest.mark.concurrency("database", limit=1)
    @pytest.mark.parametrize("number", range(4))
    def test_limited(number):
        with environment("LOCALCONC_HOME", os.environ["SHARED"]):
            assert [(holder.name, holder.pid) for holder in read_holders("database")] == [("database", os.getpid())]
"""


def test_workers_share_a_limit(pytester: pytest.Pytester, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", str(shared_home))
    pytester.makepyfile(LIMITED)
    ensure_limit("database", 1)
    with hold("database"):
        process = run(pytester, *WORKERS, "--strict-markers", "--localconc-home", shared_home)
        until_waiting({"database"}, [process])
    output = process.communicate(timeout=PATIENCE_SECONDS)[0]
    assert "4 passed" in output, output
    assert peak("database") == 1


@pytest.mark.sweep
def test_workers_use_the_home_of_the_controller(
    pytester: pytest.Pytester, shared_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where something that runs in each of them changes the environment."""
    shared = pytester.path / "another" / "pytest"
    monkeypatch.setenv("SHARED", str(shared))
    pytester.makeconftest(
        """
        import os

        if "PYTEST_XDIST_WORKER" in os.environ:
            os.environ["LOCALCONC_HOME"] = os.environ["PYTEST_XDIST_WORKER"]
        """
    )
    pytester.makepyfile(LIMITED)
    process = run(pytester, *WORKERS)
    output = process.communicate(timeout=PATIENCE_SECONDS)[0]
    assert "4 passed" in output, output
    assert not list(pytester.path.glob("gw*"))


def test_runs_share_a_limit(pytester: pytest.Pytester, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One names the home by the option, the other by the setting."""
    monkeypatch.setenv("SHARED", str(shared_home))
    pytester.makepyfile(LIMITED)
    pytester.makeini(f"[pytest]\nlocalconc_home = {shared_home}")
    ensure_limit("database", 1)
    with hold("database"):
        runs = [run(pytester, *ALONE, *home) for home in ((), ("--localconc-home", shared_home))]
        until_waiting({"database"}, runs)
    outputs = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in runs]
    assert all("4 passed" in output for output in outputs), outputs
    assert peak("database") == 1


@pytest.mark.sweep
def test_workers_share_a_rate(pytester: pytest.Pytester, shared_home: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.rate_limit("api", limit=3, slot_decay_per_second=0.0001, timeout_seconds=0)
        @pytest.mark.parametrize("number", range(5))
        def test_limited(number):
            pass
        """
    )
    result = pytester.runpytest_subprocess(*WORKERS, f"--localconc-home={shared_home}")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*AcquireConcurrencySlotTimeoutError: *'api': 3 of 3 in use*"])


def test_slots_are_held_around_fixtures_and_given_back_after_failures(
    pytester: pytest.Pytester, shared_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARED", str(shared_home))
    pytester.makepyfile(
        """
        import os, pytest
        from localconc import read_holders, read_limit
        from localconc.testing.block import environment

        def held(name):
            with environment("LOCALCONC_HOME", os.environ["SHARED"]):
                return sum(holder.slots for holder in read_holders(name))

        @pytest.fixture
        def resource():
            assert held("database") == 2
            yield
            assert held("database") == 2

        @pytest.mark.concurrency(["database", "gpu"], occupy=2, limit=4)
        class TestLimited:
            def test_holds_while_it_runs(self, resource):
                assert (held("database"), held("gpu")) == (2, 2)

            @pytest.mark.concurrency("gpu", limit=4)
            def test_the_nearest_marker_counts(self, resource):
                assert (held("database"), held("gpu")) == (2, 1)

            def test_fails(self):
                assert False

        def test_unmarked():
            assert held("database") == held("gpu") == 0

        @pytest.mark.concurrency("database", limit=4)
        def test_with_a_home_and_a_clock(localconc_clock):
            assert held("database") == 1
        """
    )
    pytester.runpytest_subprocess(*ALONE, "--localconc-home", str(shared_home)).assert_outcomes(passed=4, failed=1)
    assert read_holders() == []


def test_a_bad_marker_is_an_error_of_its_test(pytester: pytest.Pytester, shared_home: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("database", colour="red")
        def test_option(): pass

        @pytest.mark.concurrency("a/b")
        def test_name(): pass

        @pytest.mark.rate_limit("database", limit=1)
        def test_no_decay(): pass

        def test_fine(): pass
        """
    )
    result = pytester.runpytest_subprocess(*ALONE, "--localconc-home", str(shared_home))
    result.assert_outcomes(passed=1, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "ERROR *::test_option - Failed: TypeError: @pytest.mark.concurrency of *::test_option: *'colour'*",
            "ERROR *::test_name - Failed: ValueError: @pytest.mark.concurrency of *::test_name: *'a/b'*",
            "ERROR *::test_no_decay - *: @pytest.mark.rate_limit of *::test_no_decay: rate_limit needs*'database'*",
        ]
    )


def test_a_marker_wins_over_what_an_earlier_run_left(pytester: pytest.Pytester, shared_home: Path) -> None:
    ensure_limit("database", 1)
    ensure_limit("gpu", 1, active=False)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency(["database", "gpu"], limit=3)
        def test_limited(): pass
        """
    )
    pytester.runpytest_subprocess(*ALONE, "--localconc-home", str(shared_home)).assert_outcomes(passed=1)
    assert read_limit("database").limit == 3
    assert (read_limit("gpu").limit, read_limit("gpu").active) == (3, False)  # an operator switched it off


def test_markers_also_exist_under_names_that_nobody_else_uses(pytester: pytest.Pytester, shared_home: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.localconc_concurrency("database", limit=3)
        def test_limited(): pass

        @pytest.mark.localconc_rate_limit("api", limit=5, slot_decay_per_second=0.0001)
        def test_rated(): pass

        @pytest.mark.concurrency("gpu", limit=1)
        class TestNested:
            @pytest.mark.localconc_concurrency("gpu", limit=2)
            def test_the_nearest_counts(self): pass
        """
    )
    result = pytester.runpytest_subprocess(*ALONE, "--strict-markers", "--localconc-home", str(shared_home))
    result.assert_outcomes(passed=3)
    assert (read_limit("database").limit, read_limit("api").active_slots, read_limit("gpu").limit) == (3, 1, 2)


def test_a_run_with_marked_tests_says_what_is_in_force(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("database", limit=0, timeout_seconds=0)
        def test_nothing(): pass
        """
    )
    default = registry.current().directory / "pytest"
    result = pytester.runpytest_subprocess(*ALONE)
    result.stdout.fnmatch_lines([f"localconc: marked tests are limited in {default} (default)"])
    result.assert_outcomes(errors=1)

    result = pytester.runpytest_subprocess(*ALONE, "--localconc-home", "here")
    result.stdout.fnmatch_lines([f"localconc: * in {pytester.path / 'here'} (--localconc-home)"])
    assert (pytester.path / "here").is_dir()

    pytester.makeini("[pytest]\nlocalconc_home = .limits")
    result = pytester.runpytest_subprocess(*ALONE)
    result.stdout.fnmatch_lines([f"localconc: * in {pytester.path / '.limits'} (localconc_home in tox.ini)"])

    monkeypatch.setenv("LOCALCONC_DISABLED", "1")
    result = pytester.runpytest_subprocess(*ALONE)
    result.stdout.fnmatch_lines(["localconc: switched off by LOCALCONC_DISABLED*"])
    result.assert_outcomes(passed=1)


def test_a_run_without_marked_tests_says_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    for arguments in (ALONE, WORKERS):
        result = pytester.runpytest_subprocess(*arguments, "--localconc-home", "here")
        result.assert_outcomes(passed=1)
        assert "localconc:" not in result.stdout.str()
        assert not (pytester.path / "here").exists()


@pytest.mark.sweep
def test_workers_leave_it_to_the_controller_to_say_what_is_in_force(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("database", limit=1)
        @pytest.mark.parametrize("number", range(4))
        def test_limited(number): pass
        """
    )
    result = pytester.runpytest_subprocess(*WORKERS, "--localconc-home", "here")
    said = [line for line in result.outlines if line.startswith("localconc:")]
    assert said == [f"localconc: marked tests are limited in {pytester.path / 'here'} (--localconc-home)"]


@pytest.mark.parametrize("variable", ["LOCALCONC_HOME", "HOME"])
def test_the_default_home_is_that_of_the_environment_at_the_start(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Whatever a conftest.py or a test does to the environment afterwards."""
    for name in ("LOCALCONC_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(pytester.path / "before"))
    expected = home() / "pytest"
    pytester.makeconftest(
        f"import os\n\ndef pytest_collection_modifyitems():\n    os.environ[{variable!r}] = {str(pytester.path)!r}"
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("database", limit=1)
        def test_limited(): pass
        """
    )
    result = pytester.runpytest_subprocess(*ALONE)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"localconc: marked tests are limited in {expected} (default)"])
    assert (expected / "localconc.db").exists()


def test_a_run_in_which_there_is_no_home_at_all_is_not_disturbed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALCONC_HOME", "~nobody-of-this-name/limits")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess(*ALONE).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ('rate_limit("api", limit=2)', "rate_limit needs limits with slot decay"),
        ('concurrency("gpu", occupy=3, limit=2)', "occupy=3 can never be satisfied"),
    ],
)
def test_a_refusal_names_the_marker_and_the_test(
    pytester: pytest.Pytester, tmp_path: Path, marker: str, said: str
) -> None:
    pytester.makepyfile(f"import pytest\n\n@pytest.mark.{marker}\ndef test_marked(): pass\n")
    result = pytester.runpytest_subprocess(*ALONE, "--localconc-home", str(tmp_path))
    call = marker.partition("(")[0]
    result.stdout.fnmatch_lines([f"ConcurrencySlotAcquisitionError: @pytest.mark.{call} of *::test_marked: {said}*"])
