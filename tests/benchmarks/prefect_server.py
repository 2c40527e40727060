"""Acquire and release on a Prefect server: localconc beside two bare requests and Prefect's own calls."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks import semaphores
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, medians, paired_ratio, seconds_each
from tests.prefect.server import PrefectServer, client_settings

BAR_FLOORS = 1.5
BAR_OF_PREFECT = 5.0
FLOOR, OURS, PREFECT = "two bare requests", "localconc", "Prefect's own calls"
PAIR = "acquire + release on a Prefect server"
FASTER = "Prefect's own calls, in localconc's"


def measure(effort: Effort) -> Report:
    """Milliseconds for one acquire and release on the same server, in turns."""
    if not semaphores.installed("prefect"):
        return Report([Row(PAIR, None, "ms", note="needs the extra `prefect`"), Row(FASTER, None, "×")])
    with _server() as server:
        repeat = effort.choose(40, 10)
        batches: dict[str, Callable[[], float]] = {
            FLOOR: _batch(_bare_pair(server.url), repeat),
            OURS: _batch(_our_pair(), repeat),
            PREFECT: _batch(_their_pair(), repeat),
        }
        interleaved(batches, 1)
        figures = interleaved(batches, effort.choose(9, 3))
        return Report(_rows(figures))


@contextmanager
def _server() -> Iterator[PrefectServer]:
    """A server for this process, whose settings Prefect reads when it is first imported."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="prefect-", ignore_cleanup_errors=True) as directory:
        home = Path(directory) / "server"
        home.mkdir()
        server = PrefectServer(home)
        server.start()
        try:
            os.environ.update(client_settings(server.url, Path(directory) / "client"))
            yield server
        finally:
            os.environ.clear()
            os.environ.update(before)
            server.stop()


def _batch(pair: Callable[[], object], repeat: int) -> Callable[[], float]:
    return lambda: seconds_each(repeat, pair)


def _bare_pair(url: str) -> Callable[[], None]:
    import httpx

    client = httpx.Client(base_url=f"{url}/v2/concurrency_limits")
    client.post("/", json={"name": "bare", "limit": 1}).raise_for_status()
    wanted = {"names": ["bare"], "slots": 1, "mode": "concurrency", "lease_duration": 60}

    def ask(path: str, question: dict[str, Any]) -> Any:
        while True:  # a server on SQLite answers 503 while its own services write
            answer = client.post(path, json=question)
            if answer.status_code != 503:
                return answer.raise_for_status()

    def pair() -> None:
        lease_id = ask("/increment-with-lease", wanted).json()["lease_id"]
        ask("/decrement-with-lease", {"lease_id": lease_id})

    return pair


def _our_pair() -> Callable[[], None]:
    from localconc.sync import concurrency

    def pair() -> None:
        with concurrency("ours", limit=1):
            pass

    return pair


def _their_pair() -> Callable[[], None]:
    from prefect.concurrency.sync import concurrency

    from localconc import ensure_limit

    ensure_limit("theirs", 1)

    def pair() -> None:
        with concurrency("theirs"):
            pass

    return pair


def _rows(figures: dict[str, list[float]]) -> list[Row]:
    typical = medians(figures)
    floor = median(figures[FLOOR]) * 1e3
    ours = paired_ratio(figures[OURS], figures[FLOOR])
    theirs = paired_ratio(figures[PREFECT], figures[OURS])
    row = Row(PAIR, ours * floor, "ms", BAR_FLOORS * floor, note=f"{ours:.2f} × {FLOOR} of {floor:.1f} ms")
    return [
        replace(row, peers={PREFECT: typical[PREFECT] * 1e3}),
        Row(FASTER, theirs, "×", BAR_OF_PREFECT, better="higher"),
    ]
