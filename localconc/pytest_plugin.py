"""For pytest: what limited code needs in its tests, with limits on the tests themselves.

Fixtures
    `localconc_home`: a fresh home for one test, which fails if it leaves slots held.
    `localconc_clock`: a `localconc.testing.virtual_clock()` in such a home.
    `localconc_slots`: the slot numbers that a test holds by its `concurrency` markers, by the names of the limits.

Markers
    `@pytest.mark.concurrency("db", limit=2)`: at most two of the tests with this marker run at once.
    `@pytest.mark.rate_limit("api", limit=5, slot_decay_per_second=1)`: this often they start.

The markers also exist as `localconc_concurrency` and `localconc_rate_limit`. They take the arguments of
`localconc.sync.concurrency` and `rate_limit`. They count across the workers of pytest-xdist and across several runs of
pytest, in a home that these share: `--localconc-home`, else the ini setting `localconc_home`, else the directory
`pytest` in the home of the environment that pytest was started with. If a marker states another `limit=` or
`slot_decay_per_second=` than is stored there, the marker wins. A marker without `limit=` fails its test if the limit is
missing there or inactive. A test that waits says so after 2 s; `--localconc-timeout`, or the ini setting
`localconc_timeout`, is how many seconds a test may wait before it fails.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from localconc.testing import VirtualClock

#: The call that each marker stands for.
MARKERS: Final = {
    "concurrency": "concurrency",
    "localconc_concurrency": "concurrency",
    "rate_limit": "rate_limit",
    "localconc_rate_limit": "rate_limit",
}

#: Variables on which the default home depends.
HOME_VARIABLES: Final = ("LOCALCONC_HOME", "HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "USERPROFILE")


class Settings(NamedTuple):
    """What a run is told: the home of marked tests ("" for the default), and how long each may wait.

    The variables are those at the start of the run. The default home is found out when a marked test needs it, because
    most runs have none.
    """

    home: str
    source: str
    variables: dict[str, str | None]
    timeout_seconds: float | None

    @property
    def directory(self) -> Path:
        from localconc.testing.marked import home_of

        return Path(self.home) if self.home else home_of(self.variables)


_settings = pytest.StashKey[Settings]()
_is_used = pytest.StashKey[bool]()
_refusal = pytest.StashKey[BaseException]()
_occupancies = pytest.StashKey[dict[str, Any]]()
_left_before = pytest.StashKey[set[str]]()
_blamed = pytest.StashKey[set[str]]()


# ---- settings --------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("localconc", "limits on tests")
    group.addoption(
        "--localconc-home",
        metavar="DIR",
        help="home that the tests marked `concurrency` or `rate_limit` share with other workers and runs",
    )
    group.addoption(
        "--localconc-timeout", metavar="SECONDS", help="how long a marked test may wait for its slots before it fails"
    )
    parser.addini("localconc_home", "the same as --localconc-home, relative to the directory of this file")
    parser.addini("localconc_timeout", "the same as --localconc-timeout")


def pytest_configure(config: pytest.Config) -> None:
    options = "timeout_seconds=None, *, limit=None, slot_decay_per_second=None"
    for marker, call in MARKERS.items():
        what = (
            "hold slots of localconc's limits while the test runs"
            if call == "concurrency"
            else "take slots of localconc's limits with decay before the test runs"
        )
        line = f"{marker}(names, occupy=1, {options}): {what}, across workers and runs"
        config.addinivalue_line("markers", line)
    config.stash[_settings] = Settings(*_home_setting(config), _timeout_setting(config))
    config.pluginmanager.register(LeakCheck(), "localconc-leak-check")


def _home_setting(config: pytest.Config) -> tuple[str, str, dict[str, str | None]]:
    from_controller = getattr(config, "workerinput", {}).get("localconc_home")
    if from_controller:
        home, variables = from_controller
        return home, "of the controller", variables
    variables = {name: os.environ.get(name) for name in HOME_VARIABLES}
    option = config.getoption("localconc_home")
    if option:
        return str(config.invocation_params.dir / Path(option).expanduser()), "--localconc-home", variables
    setting = config.getini("localconc_home")
    if setting:
        base = config.inipath.parent if config.inipath else config.rootpath
        source = f"localconc_home in {config.inipath.name if config.inipath else '-o'}"
        return str(base / Path(str(setting)).expanduser()), source, variables
    return "", "default", variables


def _timeout_setting(config: pytest.Config) -> float | None:
    option = config.getoption("localconc_timeout")
    name, text = (
        ("--localconc-timeout", option) if option else ("localconc_timeout", config.getini("localconc_timeout"))
    )
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise pytest.UsageError(f"{name} must be a number of seconds, 0 or more, not {text!r}")
    return seconds


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let a worker of pytest-xdist share the controller's home, whatever its own settings or environment say."""
    settings = node.config.stash[_settings]
    node.workerinput["localconc_home"] = (settings.home, settings.variables)


# ---- what the report says --------------------------------------------------------------------------------------------


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str | None:
    return _in_force(config) if any(map(_markers, items)) else None


def _in_force(config: pytest.Config) -> str:
    from localconc._environment import is_disabled

    if is_disabled():
        return "localconc: switched off by LOCALCONC_DISABLED, marked tests are not limited"
    settings = config.stash[_settings]
    return f"localconc: marked tests are limited in {settings.directory} ({settings.source})"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the controller of pytest-xdist, which sees no tests itself, know of marked ones."""
    if hasattr(session.config, "workeroutput") and any(map(_markers, session.items)):
        session.config.workeroutput["localconc_is_used"] = True


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if getattr(node, "workeroutput", {}).get("localconc_is_used"):
        node.config.stash[_is_used] = True


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.stash.get(_is_used, False):
        terminalreporter.write_line(_in_force(config))


def _say(config: pytest.Config, text: str) -> None:
    """Write a line to the terminal, also from a worker, whose standard error is the controller's."""
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    with nullcontext() if capture is None else capture.global_and_fixture_disabled():
        if reporter is None or hasattr(config, "workerinput"):
            sys.stderr.write(f"\n{text}\n")
            sys.stderr.flush()
        else:
            reporter.ensure_newline()
            reporter.write_line(text)
            reporter.flush()


# ---- limits on tests -------------------------------------------------------------------------------------------------

# The hooks are in the style of pluggy 1.0, which pytest 7 may still come with.


def _markers(item: pytest.Item) -> list[tuple[str, pytest.Mark]]:
    """Return a test's markers with the call that each stands for, the nearest first."""
    return [(MARKERS[marker.name], marker) for marker in item.iter_markers() if marker.name in MARKERS]


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold the slots around everything, fixtures and other plugins' time-outs included."""
    markers = _markers(item)
    if not markers:
        yield
        return
    with ExitStack() as held:
        try:
            _acquire(item, markers, held)
        except Exception as error:
            item.stash[_refusal] = error  # the setup of the test fails with it
        yield


def _acquire(item: pytest.Item, markers: Iterable[tuple[str, pytest.Mark]], held: ExitStack) -> None:
    from localconc._environment import is_disabled
    from localconc.testing import marked

    if is_disabled():
        return
    settings = item.config.stash[_settings]
    item.stash[_occupancies] = marked.acquire(
        item.nodeid,
        marked.demands_of(item.nodeid, markers),
        settings.directory,
        settings.timeout_seconds,
        lambda text: _say(item.config, text),
        held,
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    refusal = item.stash.get(_refusal, None)
    if refusal is not None:
        pytest.fail(f"{type(refusal).__name__}: {refusal}", pytrace=False)


@pytest.fixture
def localconc_slots(request: pytest.FixtureRequest) -> dict[str, tuple[int, ...]]:
    """The numbers of the slots that this test holds by its `concurrency` markers, by the names of their limits.

    At the same time, no other test has the same number of the same limit: use it to tell databases or ports apart.
    Slots of a limit with decay have no numbers: to look its name up is a `ValueError`.
    """
    from localconc.testing.marked import SlotNumbers, demands_of

    held = request.node.stash.get(_occupancies, {})
    demands = demands_of(request.node.nodeid, _markers(request.node))
    return SlotNumbers(held, [demand.name for demand in demands if demand.call == "concurrency"])


# ---- homes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def localconc_home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A fresh, empty home of limits for this test and the processes it starts.

    The test fails if it, or a fixture it uses, leaves slots held or waited for; the failure names holders and waiters.
    """
    from localconc.testing.homes import opened_home

    found: list[str] = []
    with opened_home(found.extend) as directory:
        yield directory
    blamed = request.node.stash.get(_blamed, set())
    _fail_for([line for line in found if line not in blamed])


@pytest.fixture
def localconc_clock(localconc_home: Path) -> Iterator[VirtualClock]:
    """A clock for this test, in a fresh home, which jumps when all participants wait; `elapsed` says how far."""
    from localconc.testing import virtual_clock

    with virtual_clock() as clock:
        yield clock


class LeakCheck:
    """Fails a test for what it left behind itself: its fixtures may hold slots until they are torn down."""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if "localconc_home" in getattr(item, "fixturenames", ()):
            from localconc.testing.homes import left_in_home

            item.stash[_left_before] = set(left_in_home())

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Come after the body, if it passed; if it failed, its home looks for leaks when it is torn down."""
        before = item.stash.get(_left_before, None)
        if before is not None:
            from localconc.testing.homes import left_in_home

            found = [line for line in left_in_home() if line not in before]
            item.stash[_blamed] = set(found)
            _fail_for(found)


def _fail_for(found: list[str]) -> None:
    if found:
        pytest.fail("Slots were not given back:\n" + "\n".join(f"  {line}" for line in found), pytrace=False)
