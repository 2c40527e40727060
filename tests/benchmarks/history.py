"""What the history costs: kept by each acquisition, summed up by `stats`, drawn by `timeline`."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import localconc
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, medians

ROWS = 10_000
BAR_PAIR_US, BAR_CONTENDED_US = 1.0, 3.0
BAR_STATISTICS_MS, BAR_PAGE_SECONDS, BAR_PAGE_BYTES = 150, 1.0, 3_000_000
PROCESSES, LIMIT, HELD_SECONDS = 4, 2, 0.001
TRIGGERS = Path("_engine", "store", "rows", "schema.py")
INSERT = re.compile(r"        INSERT INTO history \([^;]*?old\.limit_id[^;]*?\n        \);\n")  # of the release

#: What 0.1.0 noted of each acquisition, for its events.
EVENTS_ONLY = """\
        INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_wall, released_wall, waited_seconds)
        VALUES (
            old.limit_id, coalesce(old."limit", (SELECT "limit" FROM slots WHERE {total_of("old.limit_id")})),
            old.owner_id, old.serial, old.slots, old.acquired_wall,
            old.acquired_wall + (new.released_boot - old.acquired_boot), 0
        );
"""
WHOLE, EVENTS, NOTHING = "the history", "as much as 0.1.0 kept for events", "no history at all"
VARIANTS = {WHOLE: None, EVENTS: EVENTS_ONLY, NOTHING: ""}

WORKER = """
import json, sys, time
from localconc.sync import concurrency

def alone(count):
    for _ in range(int(count)):
        with concurrency("alone", limit=1):
            pass
    return int(count)

def together(seconds, limit, held_seconds):
    pairs, end = 0, time.monotonic() + float(seconds)
    while time.monotonic() < end:
        with concurrency("together", limit=int(limit)):
            time.sleep(float(held_seconds))
        pairs += 1
    return pairs

alone(2000)
for line in sys.stdin:
    order, *arguments = line.split()
    begun = time.process_time()
    pairs = {"alone": alone, "together": together}[order](*arguments)
    print(json.dumps([pairs, time.process_time() - begun]), flush=True)
"""


@dataclass
class Crew:
    """Processes that share a home and a copy of the package."""

    processes: list[subprocess.Popen[str]]

    def tell(self, count: int, *order: object) -> float:
        """Give some of them an order; return the microseconds of processor time for each pair that they made."""
        for process in self.processes[:count]:
            assert process.stdin is not None
            process.stdin.write(" ".join(map(str, order)) + "\n")
            process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for process in self.processes[:count] if process.stdout]
        return sum(seconds for _, seconds in answers) / sum(pairs for pairs, _ in answers) * 1e6


def measure(effort: Effort) -> Report:
    """Microseconds that the history adds to a pair, and how quickly a full history is read and drawn."""
    with temporary_home() as directory:
        return Report([*_pairs(directory, effort), *_reading(directory, effort)])


# ---- keeping it ------------------------------------------------------------------------------------------------------


def _pairs(directory: Path, effort: Effort) -> list[Row]:
    rounds = effort.choose(60, 10)
    with ExitStack() as stack:
        crews = {name: stack.enter_context(_crew(directory / f"variant-{n}", insert)) for n, (name, insert) in
                 enumerate(VARIANTS.items())}  # fmt: skip
        alone = interleaved({name: partial(crew.tell, 1, "alone", 1_000) for name, crew in crews.items()}, rounds)
        order = ("together", effort.choose(0.6, 0.3), LIMIT, HELD_SECONDS)
        together = interleaved({name: partial(crew.tell, PROCESSES, *order) for name, crew in crews.items()}, rounds)
    return [
        _row("what the history knows adds to an uncontended pair", alone, BAR_PAIR_US),
        _row("what it adds to a contended one", together, BAR_CONTENDED_US),
    ]


def _row(what: str, figures: dict[str, list[float]], bar: float) -> Row:
    spent = medians(figures)
    added = {
        name: median(one - other for one, other in zip(figures[WHOLE], figures[name], strict=True))
        for name in (EVENTS, NOTHING)
    }
    note = f"processor time {spent[WHOLE]:.1f} µs; over {NOTHING} {added[NOTHING]:.1f} µs"
    return Row(what, added[EVENTS], "µs", bar, note=note)


@contextmanager
def _crew(directory: Path, insert: str | None) -> Iterator[Crew]:
    """Start processes with a copy of the package whose trigger notes less of an acquisition, or nothing."""
    package = directory / "localconc"
    shutil.copytree(Path(localconc.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    if insert is not None:
        text = (package / TRIGGERS).read_text(encoding="utf-8")
        changed, count = INSERT.subn(lambda _: insert, text)
        assert count == 1, "the trigger is written differently by now"
        (package / TRIGGERS).write_text(changed, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(directory), "LOCALCONC_HOME": str(directory / "home")}
    crew = Crew([
        subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for _ in range(PROCESSES)
    ])  # fmt: skip
    try:
        crew.tell(PROCESSES, "alone", 100)
        yield crew
    finally:
        for process in crew.processes:
            process.communicate()


# ---- reading it ------------------------------------------------------------------------------------------------------


def _reading(directory: Path, effort: Effort) -> list[Row]:
    from localconc.sync import concurrency

    for number in range(ROWS):
        with concurrency("full", limit=2, label=f"job {number % 50}"):
            pass
    page = directory / "timeline.html"
    turns = {
        "stats": partial(_milliseconds, localconc.read_statistics, "full"),
        "history": partial(_milliseconds, localconc.read_history),
        "page": partial(_command_seconds, "timeline", "-o", str(page)),
        "help": partial(_command_seconds, "timeline", "--help"),
    }
    interleaved(turns, 1)
    spent = medians(interleaved(turns, effort.choose(9, 3)))
    return [
        Row(f"statistics of {ROWS:,} acquisitions", spent["stats"], "ms", BAR_STATISTICS_MS,
            note=f"reading all of them {spent['history']:.0f} ms"),
        Row(f"`localconc timeline -o FILE.html` of {ROWS:,} acquisitions", spent["page"], "s", BAR_PAGE_SECONDS,
            note=f"`localconc timeline --help` {spent['help']:.2f} s"),
        Row("its size", page.stat().st_size / 1e6, "MB", BAR_PAGE_BYTES / 1e6),
    ]  # fmt: skip


def _milliseconds(read: object, *arguments: object) -> float:
    assert callable(read)
    start = time.perf_counter()
    read(*arguments)
    return (time.perf_counter() - start) * 1e3


def _command_seconds(*words: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "localconc", *words], check=True, capture_output=True)
    return time.perf_counter() - start
