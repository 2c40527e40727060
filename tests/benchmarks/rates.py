"""A rate limit shared by 4 processes: how exact it is, and that it never lets too many through."""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew, line_up
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.semaphores import OURS

PROCESSES, RATE, BURST = 4, 200.0, 20
WARM_UP_SECONDS = BURST / RATE * 1.5
BAR_PERCENT = 1.0

Call = Callable[[], object]
Admission = tuple[float, float]


@dataclass(frozen=True)
class RateLimiter:
    """A contender: how to open it in a process as something that returns when it admits."""

    name: str
    needs: str
    open: Callable[[Path, str], Call]
    processes: int = PROCESSES


def measure(effort: Effort) -> Report:
    """Deviation from the rate after the burst, and the largest excess over what any window allows."""
    seconds = effort.choose(5.0, 1.0)
    deviations: dict[str, float] = {}
    excesses: dict[str, float] = {}
    for limiter in LIMITERS:
        if not semaphores.installed(limiter.needs):
            continue
        admissions = _admissions(limiter, seconds)
        deviations[limiter.name] = 100 * abs(_rate_after_burst(admissions) / RATE - 1)
        excesses[limiter.name] = _excess(admissions)
    names = [limiter.name for limiter in LIMITERS if limiter.name != OURS]
    what = f"{PROCESSES} processes, {RATE:.0f}/s after a burst of {BURST}"
    return Report(
        [
            Row(
                f"{what}: deviation from the rate",
                deviations.get(OURS),
                "%",
                BAR_PERCENT,
                note="aiolimiter serves one process only",
                peers={name: deviations.get(name) for name in names},
            ),
            Row(
                f"{what}: most above L + r·t in any window",
                excesses.get(OURS),
                "slots",
                0.0,
                note="below 0: never above",
                peers={name: excesses.get(name) for name in names},
            ),
        ]
    )


def _admissions(limiter: RateLimiter, seconds: float) -> list[Admission]:
    with temporary_home() as directory, Crew(limiter.processes) as crew:
        told = crew.call(_call_until, limiter.name, directory, seconds)
    return sorted((admission for admissions in told for admission in admissions), key=lambda pair: pair[1])


def _call_until(limiter: str, directory: Path, seconds: float) -> list[Admission]:
    """In a worker: call until the time is up; when each call began, and when it was let through."""
    call = BY_NAME[limiter].open(directory, "rate")
    clock, admissions = time.monotonic, []
    line_up()
    time.sleep(WARM_UP_SECONDS)
    line_up()
    end = clock() + seconds
    while (asked := clock()) < end:
        call()
        admissions.append((asked, clock()))
    return admissions


def _rate_after_burst(admissions: Sequence[Admission]) -> float:
    steady = [admitted for _, admitted in admissions[BURST:]]
    return (len(steady) - 1) / (steady[-1] - steady[0])


def _excess(admissions: Sequence[Admission]) -> float:
    """How far the fullest window is above L + r·t.

    Nobody sees the moment of an admission from outside, only that it lies between a call and its return. So a
    window reaches from one call to another's return, and holds the calls that lie within it whole.
    """
    return max(
        count - BURST - RATE * (until - since)
        for since, _ in admissions
        for count, until in enumerate((returned for called, returned in admissions if called >= since), 1)
    )


def _open_localconc(_: Path, name: str) -> Call:
    from localconc.sync import rate_limit

    rate_limit(name, limit=BURST, slot_decay_per_second=RATE)
    return lambda: rate_limit(name)


def _open_throttle(directory: Path, name: str) -> Call:
    import diskcache

    cache = diskcache.Cache(str(directory / "diskcache"), eviction_policy="none")
    throttled = diskcache.throttle(cache, BURST, BURST / RATE, name=name)(bool)
    throttled()
    return throttled  # type: ignore[no-any-return]


def _open_pyrate(directory: Path, name: str) -> Call:
    limiter_module = importlib.import_module("pyrate_limiter")
    interval_ms = round(1000 * BURST / RATE)
    bucket = limiter_module.SQLiteBucket.init_from_file(
        [limiter_module.Rate(BURST, interval_ms)],
        db_path=str(directory / "pyrate.sqlite"),
        use_file_lock=True,
    )
    limiter = limiter_module.Limiter(bucket)
    return lambda: limiter.try_acquire(name)


def _open_aiolimiter(_: Path, name: str) -> Call:
    import asyncio

    from aiolimiter import AsyncLimiter

    runner = asyncio.Runner()
    limiter = AsyncLimiter(BURST, BURST / RATE)
    return lambda: runner.run(limiter.acquire())


LIMITERS = (
    RateLimiter(OURS, "localconc.sync", _open_localconc),
    RateLimiter("diskcache.throttle", "diskcache", _open_throttle),
    RateLimiter("pyrate-limiter", "pyrate_limiter", _open_pyrate),
    RateLimiter("aiolimiter", "aiolimiter", _open_aiolimiter, processes=1),
)
BY_NAME = {limiter.name: limiter for limiter in LIMITERS}
