"""The fixtures of the pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.kit.pytest_runs import ALONE, WORKERS, quick_runs  # noqa: F401

pytestmark = pytest.mark.usefixtures("quick_runs")


def test_tests_get_a_home_and_a_clock_of_their_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import localconc
        from localconc.sync import concurrency, rate_limit

        homes = []

        def test_home(localconc_home):
            assert localconc.home() == localconc_home
            localconc.ensure_limit("database", 1)
            homes.append(localconc_home)

        def test_another_home(localconc_home):
            assert localconc.read_limits() == []
            assert not homes[0].exists()

        def test_clock(localconc_clock):
            for _ in range(100):
                rate_limit("api", limit=5, slot_decay_per_second=1)
            assert localconc_clock.elapsed == 95

        def test_neither():
            assert localconc.home() not in homes
        """
    )
    pytester.runpytest_subprocess(*ALONE, "--strict-markers").assert_outcomes(passed=4)


def test_a_test_knows_the_numbers_of_its_slots(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency(["database", "gpu"], occupy=2, limit=4)
        @pytest.mark.localconc_concurrency("port", limit=9)
        @pytest.mark.rate_limit("api", limit=5, slot_decay_per_second=1)
        def test_marked(localconc_slots):
            assert localconc_slots == {"database": (0, 1), "gpu": (0, 1), "port": (0,)}

        def test_unmarked(localconc_slots):
            assert localconc_slots == {}
        """
    )
    pytester.runpytest_subprocess(*ALONE, "--localconc-home", str(tmp_path)).assert_outcomes(passed=2)


@pytest.mark.sweep
def test_tests_that_run_at_once_have_different_numbers(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(
        """
        import pathlib, pytest, time

        @pytest.mark.concurrency("database", limit=4)
        @pytest.mark.parametrize("number", range(2))
        def test_both(number, localconc_slots):
            (slot,) = localconc_slots["database"]
            pathlib.Path(f"slot {slot}").touch()
            deadline = time.monotonic() + 60
            while not all(pathlib.Path(f"slot {each}").exists() for each in range(2)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        """
    )
    pytester.runpytest_subprocess(*WORKERS, "--localconc-home", str(tmp_path)).assert_outcomes(passed=2)


def test_a_marker_with_decay_leaves_the_others_their_numbers(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("api", limit=2, slot_decay_per_second=1)
        @pytest.mark.concurrency("database", limit=2)
        def test_marked(localconc_slots):
            assert localconc_slots == {"database": (0,)}
            with pytest.raises(ValueError, match="'api' drain"):
                localconc_slots["api"]
            with pytest.raises(KeyError):
                localconc_slots["other"]
        """
    )
    pytester.runpytest_subprocess(*ALONE, "--localconc-home", str(tmp_path)).assert_outcomes(passed=1)


def test_switched_off_limits_have_no_numbers(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCONC_DISABLED", "1")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("undeclared")
        def test_marked(localconc_slots):
            assert localconc_slots == {"undeclared": ()}
        """
    )
    pytester.runpytest_subprocess(*ALONE).assert_outcomes(passed=1)


def test_a_clock_takes_no_slots_away_from_marked_tests(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """What a marker holds lives by real time, in another home: it is released after the test, with the next one."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.concurrency("database", limit=1, timeout_seconds=0)
        @pytest.mark.parametrize("number", range(3))
        def test_clock(number, localconc_clock):
            pass
        """
    )
    result = pytester.runpytest_subprocess(*ALONE, "--localconc-home", str(tmp_path))
    result.assert_outcomes(passed=3)


def test_leaks_fail_the_test_and_name_who_holds(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest
        from localconc.sync import concurrency
        from localconc.testing import hold

        @pytest.fixture
        def tidy(localconc_home):
            with concurrency("held by a fixture", limit=1):
                yield

        @pytest.fixture
        def untidy(localconc_home):
            slots = concurrency("left by a fixture", limit=1)
            slots.__enter__()
            yield
            kept.append(slots)

        kept = []

        def test_tidy(tidy):
            with concurrency("database", limit=1):
                pass

        def test_leaky(localconc_home, tidy):
            print("own pid", os.getpid())
            kept.append(concurrency("database", limit=3, occupy=2))
            kept[-1].__enter__()

        def test_leaks_a_process(localconc_home):
            kept.append(hold("database", limit=3))
            print("helper", kept[-1].__enter__().pid)

        def test_leaky_fixture(untidy):
            pass

        def test_fails_anyway(localconc_home):
            with concurrency("database", limit=3):
                assert 1 == 2

        def test_after_the_leak(localconc_home):
            for slots in kept:
                slots.__exit__(None, None, None)
        """
    )
    result = pytester.runpytest_subprocess(*ALONE)
    result.assert_outcomes(passed=3, failed=3, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "FAILED *::test_leaky - Failed: Slots were not given back:*",
            "FAILED *::test_leaks_a_process - Failed: Slots were not given back:*",
            "ERROR *::test_leaky_fixture - Failed: Slots were not given back:*",
            "FAILED *::test_fails_anyway - assert 1 == 2",
        ]
    )
    output = result.stdout.str()
    pid, helper = (output.split(word)[1].split()[0] for word in ("own pid ", "helper "))
    assert f"'database': 2 slot(s) held by pid {pid} (this process, thread 'MainThread')" in output
    assert f"'database': 1 slot(s) held by pid {helper} (`" in output
    assert "'left by a fixture': 1 slot(s) held by pid" in output
    assert "'held by a fixture'" not in output


def test_a_store_that_a_test_made_unusable_does_not_fail_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sqlite3
        import localconc
        import pytest
        from localconc._engine import registry

        def test_newer(localconc_home):
            localconc.ensure_limit("database", 1)
            registry.forget(localconc_home)
            with sqlite3.connect(localconc_home / "localconc.db") as connection:
                connection.execute("PRAGMA user_version = 9999")
            with pytest.raises(localconc.StoreError):
                localconc.read_limits()
        """
    )
    pytester.runpytest_subprocess(*ALONE).assert_outcomes(passed=1)


def test_a_run_that_limits_nothing_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_loaded():
            print("loaded:", *sys.modules)
        """
    )
    output = pytester.runpytest_subprocess(*ALONE).stdout.str()
    loaded = set(output.split("loaded:")[1].splitlines()[0].split())
    heavy = {"asyncio", "filelock", "multiprocessing", "pendulum", "platformdirs", "sqlite3"}
    heavy |= {"localconc.sync", "localconc.testing", "localconc.limits"}
    assert loaded & heavy == set()
    assert "localconc.pytest_plugin" in loaded


def test_pytest_finds_the_plugin_by_itself(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(point.name == "localconc" for point in entry_points(group="pytest11")):
        pytest.skip("the project is not installed, only on the path")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    result = pytester.runpytest_subprocess("--markers", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["@pytest.mark.concurrency(names, *", "@pytest.mark.rate_limit(names, *"])
