"""For pytest: a home and a clock for tests of limited code, and limits on the tests themselves.

Fixtures
    `localconc_home`: a fresh home for one test, which fails if slots are not given back by its end.
    `localconc_clock`: a `localconc.testing.virtual_clock()` in such a home.

Markers
    `@pytest.mark.concurrency("db", limit=2)`: at most two of the tests marked so run at once.
    `@pytest.mark.rate_limit("api", limit=5, slot_decay_per_second=1)`: so often they start.

Both take the arguments of `localconc.sync.concurrency` and `rate_limit`. They count across the workers of pytest-xdist
and across several runs of pytest, in a home that these share: `--localconc-home`, else the ini setting
`localconc_home`, else the directory `pytest` in the home of the environment that pytest was started with. Where a
marker says another `limit=` or `slot_decay_per_second=` than is stored there, the marker wins.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from localconc._engine import switch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localconc.testing import VirtualClock

MARKERS = ("concurrency", "rate_limit")

_home = pytest.StashKey[Path]()
_home_source = pytest.StashKey[str]()
_refusal = pytest.StashKey[BaseException]()
_blamed = pytest.StashKey[set[str]]()


# ---- settings --------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("localconc", "limits on tests")
    group.addoption(
        "--localconc-home",
        metavar="DIR",
        help="home that the tests marked `concurrency` or `rate_limit` share with other workers and runs",
    )
    parser.addini("localconc_home", "the same, as a path relative to the directory of this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "concurrency(names, occupy=1, timeout_seconds=None, *, limit=None, slot_decay_per_second=None): "
        "hold slots of localconc's limits while the test runs, across workers and runs",
    )
    config.addinivalue_line(
        "markers",
        "rate_limit(names, occupy=1, timeout_seconds=None, *, limit=None, slot_decay_per_second=None): "
        "take slots of localconc's limits with decay before the test runs, across workers and runs",
    )
    config.stash[_home], config.stash[_home_source] = _shared_home(config)


def _shared_home(config: pytest.Config) -> tuple[Path, str]:
    from_controller = getattr(config, "workerinput", {}).get("localconc_home")
    if from_controller:
        return Path(from_controller), "of the controller"
    option = config.getoption("localconc_home")
    if option:
        return config.invocation_params.dir / Path(option).expanduser(), "--localconc-home"
    setting = config.getini("localconc_home")
    if setting:
        base = config.inipath.parent if config.inipath else config.rootpath
        return base / Path(setting).expanduser(), f"localconc_home in {config.inipath.name if config.inipath else '-o'}"
    from localconc._engine.home import home, is_on_a_server, user_home

    # Markers limit the tests of this machine, whoever keeps the limits of what is tested.
    return (user_home() if is_on_a_server() else home()) / "pytest", "default"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker of pytest-xdist shares the controller's home, however its own settings would read."""
    node.workerinput["localconc_home"] = str(node.config.stash[_home])


def pytest_report_header(config: pytest.Config) -> str:
    if switch.is_disabled():
        return "localconc: switched off by LOCALCONC_DISABLED, marked tests are not limited"
    return f"localconc: marked tests are limited in {config.stash[_home]} ({config.stash[_home_source]})"


# ---- limits on tests -------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold the slots around everything, fixtures and other plugins' time-outs included."""
    if not any(item.get_closest_marker(name) for name in MARKERS) or switch.is_disabled():
        return (yield)
    with ExitStack() as held:
        try:
            _acquire(item, held)
        except Exception as error:
            item.stash[_refusal] = error  # it is the test's to fail
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    __tracebackhide__ = True
    refusal = item.stash.get(_refusal, None)
    if refusal is not None:
        pytest.fail(f"{type(refusal).__name__}: {refusal}", pytrace=False)


def _acquire(item: pytest.Item, held: ExitStack) -> None:
    """Take what the markers of a test ask for, name by name in one order for all tests: so no two wait for each other.

    Rates come last: no place in them is used up while the test still waits for other slots.
    """
    from localconc.sync import concurrency, rate_limit
    from localconc.testing.block import environment

    with environment("LOCALCONC_HOME", str(item.config.stash[_home])):
        for name, options in sorted(_asked(item, "concurrency", concurrency).items()):
            _declare(name, options)
            held.enter_context(concurrency(name, **options))
        for name, options in sorted(_asked(item, "rate_limit", rate_limit).items()):
            _declare(name, options)
            rate_limit(name, **options)


def _asked(item: pytest.Item, kind: str, call: Any) -> dict[str, dict[str, Any]]:
    """The options for each name; the marker nearest to the test counts."""
    import inspect

    from localconc._engine.arguments import limit_names

    asked: dict[str, dict[str, Any]] = {}
    for marker in item.iter_markers(kind):
        try:
            options = inspect.signature(call).bind(*marker.args, **marker.kwargs).arguments
            for name in limit_names(options.pop("names")):
                asked.setdefault(name, options)
        except (TypeError, ValueError) as error:
            raise type(error)(f"@pytest.mark.{kind} of {item.nodeid}: {error}") from None
    return asked


def _declare(name: str, options: dict[str, Any]) -> None:
    """Let a marker's numbers win over those that an earlier run left; an operator's on and off stays."""
    from localconc import LimitNotFoundError, read_limit, update_limit

    stated = {key: options[key] for key in ("limit", "slot_decay_per_second") if options.get(key) is not None}
    try:
        stored = read_limit(name)
    except LimitNotFoundError:
        return
    if stated and any(getattr(stored, key) != value for key, value in stated.items()):
        update_limit(name, **stated)


# ---- fixtures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def localconc_home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A fresh, empty home of limits for this test and the processes it starts.

    The test fails if it, or a fixture it uses, still holds slots or waits for some at its end; the failure names who.
    """
    from localconc.testing.homes import opened_home

    found: list[str] = []
    with opened_home(found.extend) as directory:
        yield directory
    blamed = request.node.stash.get(_blamed, set())
    _fail_for([line for line in found if line not in blamed])


@pytest.fixture
def localconc_clock(localconc_home: Path) -> Iterator[VirtualClock]:
    """A clock for this test, in a fresh home, that jumps where somebody would wait; `elapsed` says how far."""
    from localconc.testing import virtual_clock

    with virtual_clock() as clock:
        yield clock


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Blame a test itself for what it left behind; its fixtures may hold slots until they are torn down."""
    __tracebackhide__ = True
    if "localconc_home" not in getattr(item, "fixturenames", ()):
        return (yield)
    from localconc.testing.leaks import left_in_home

    before = set(left_in_home())
    result = yield
    found = [line for line in left_in_home() if line not in before]
    item.stash[_blamed] = set(found)
    _fail_for(found)
    return result


def _fail_for(found: list[str]) -> None:
    __tracebackhide__ = True
    if found:
        pytest.fail("Slots were not given back:\n" + "\n".join(f"  {line}" for line in found), pytrace=False)
