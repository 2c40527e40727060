"""Run the benchmarks that are named, or all but the soak; print a table, and write JSON if asked to."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import machine, table
from tests.benchmarks.isolation import BenchmarkError, run
from tests.benchmarks.report import Effort, Report

BENCHMARKS = {
    "uncontended": ("uncontended", "measure"),
    "contention": ("contention", "measure_with_holds"),
    "no_holds": ("contention", "measure_without_holds"),
    "handover": ("handover", "measure"),
    "threads": ("threads", "measure"),
    "killed_holder": ("killed_holder", "measure"),
    "idle_waiters": ("idle_waiters", "measure"),
    "rates": ("rates", "measure"),
    "event_loop": ("event_loop", "measure"),
    "waiting_tasks": ("waiting_tasks", "measure"),
    "start_up": ("start_up", "measure"),
    "curves": ("curves", "measure"),
    "prefect_server": ("prefect_server", "measure"),
    "soak": ("soak", "measure"),
}
ONLY_WHEN_NAMED = {"soak"}
PATIENCE_SECONDS = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when every benchmark came to its end, whether or not the bars are met."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that all that was begun is cleared up
    options = _parser().parse_args(arguments)
    names = options.names or [name for name in BENCHMARKS if name not in ONLY_WHEN_NAMED]
    about = machine.description()
    print(table.head(about), flush=True)
    reports: dict[str, Report] = {}
    for name in names:
        start = time.monotonic()
        try:
            reports[name] = run(*BENCHMARKS[name], Effort(options.quick), PATIENCE_SECONDS)
        except BenchmarkError as error:
            print(f"{name}: FAILED: {str(error).strip().splitlines()[-1]}", flush=True)
            print(error, file=sys.stderr)
            continue
        print(table.text(name, reports[name], time.monotonic() - start), flush=True)
    print("\n" + table.summary(reports))
    if options.json:
        told = {name: report.as_json() for name, report in reports.items()}
        options.json.write_text(json.dumps({"about": about, "quick": options.quick, "benchmarks": told}, indent=1))
    return 0 if len(reports) == len(names) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", choices=[*BENCHMARKS, []], help=f"of: {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds, under a minute")
    return parser


if __name__ == "__main__":
    sys.exit(main())
