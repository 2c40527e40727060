"""Run the benchmarks that are named, or all; print a table, and write JSON or the document if asked to."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import document, machine, table
from tests.benchmarks.isolation import BenchmarkError, run
from tests.benchmarks.report import Effort, Report

BENCHMARKS = {
    "uncontended": "one call that nobody competes with, beside the floor",
    "contention": "8, 16 and 50 processes beside POSIX semaphores; what a pair costs the processors",
    "nothing_held": "4 processes that release at once",
    "throughput": "throughput against the number of processes, for the picture",
    "handover": "to a sleeping process, between threads, between tasks, beside bare ones",
    "threads": "200 jobs on 8 threads",
    "killed_holder": "how soon a killed holder's slot reaches a waiter",
    "idle_waiters": "50 processes and 500 threads that wait",
    "rates": "a rate limit of 4 processes",
    "event_loop": "how long a loop with 500 tasks stands still",
    "waiting_tasks": "10,000 tasks that wait",
    "names_once": "3,000 names used once each",
    "numbers_and_pauses": "slot numbers, pauses, and what they cost those who use none",
    "curves": "what acquire + release costs as all else grows",
    "history": "what the history costs a pair; figures and page of a full one",
    "start_up": "the import, and `localconc run`",
    "prefect_server": "one call on a Prefect server, beside two bare requests and Prefect's own calls",
    "soak": "a million pairs in one process: files, memory, descriptors",
}
PATIENCE_SECONDS = 900.0
DOCUMENTS = Path(__file__).parents[2] / ".github"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when every benchmark came to its end, whether or not the bars are met."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that all that was begun is cleared up
    options = _parser().parse_args(arguments)
    names = options.names or list(BENCHMARKS)
    if options.write and not set(document.NEEDED) <= set(names):
        sys.exit(f"--write takes {' and '.join(document.NEEDED)}, too: name them, or name none for all")
    about = machine.description()
    print(table.head(about), flush=True)
    reports: dict[str, Report] = {}
    for name in names:
        start = time.monotonic()
        try:
            reports[name] = run(name, Effort(options.quick), PATIENCE_SECONDS)
        except BenchmarkError as error:
            print(f"{name}: FAILED: {str(error).strip().splitlines()[-1]}", flush=True)
            print(error, file=sys.stderr)
            continue
        print(table.text(name, reports[name], time.monotonic() - start), flush=True)
    print("\n" + table.summary(reports))
    if options.json:
        told = {name: report.as_json() for name, report in reports.items()}
        options.json.write_text(json.dumps({"about": about, "quick": options.quick, "benchmarks": told}, indent=1))
    if options.write and len(reports) == len(names):
        document.write(DOCUMENTS, about, reports, options.quick)
    return 0 if len(reports) == len(names) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        epilog="\n".join(["benchmarks:", *(f"  {name:<18} {what}" for name, what in BENCHMARKS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", choices=[*BENCHMARKS, []], help="only these; all without")
    parser.add_argument("--write", action="store_true", help="also write .github/BENCHMARKS.md and its pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds, about three minutes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
