"""The fixtures of the pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from tests.kit.pytest_runs import ALONE, quick_runs  # noqa: F401

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


def modules_loaded(pytester: pytest.Pytester, *arguments: str) -> set[str]:
    output = pytester.runpytest_subprocess(*arguments).stdout.str()
    return set(output.split("loaded:")[1].splitlines()[0].split())


def test_a_run_that_limits_nothing_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_loaded():
            print("loaded:", *sys.modules)
        """
    )
    loaded = modules_loaded(pytester, *ALONE)
    heavy = {"asyncio", "filelock", "multiprocessing", "pendulum", "sqlite3", "localconc.sync", "localconc.testing"}
    pytests_own = modules_loaded(pytester, "-rA", "-p", "no:localconc")  # of Python 3.14: asyncio
    assert loaded & heavy <= pytests_own
    assert "localconc.pytest_plugin" in loaded


def test_pytest_finds_the_plugin_by_itself(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(point.name == "localconc" for point in entry_points(group="pytest11")):
        pytest.skip("the project is not installed, only on the path")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    result = pytester.runpytest_subprocess("--markers", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["@pytest.mark.concurrency(names, *", "@pytest.mark.rate_limit(names, *"])
