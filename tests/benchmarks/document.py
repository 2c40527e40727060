"""Write `.github/BENCHMARKS.md` and its pictures from one run."""

from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks import picture, table, throughput
from tests.benchmarks.report import Report, Row

COMMAND = "python -m tests.benchmarks --write"
NEEDED = ("contention", "throughput")
VERDICTS = {True: "yes", False: "**no**", None: ""}
HEAD = """\
# Benchmarks

localconc beside its peers, all figures from one run of `{command}`, which wrote this
file and its pictures. The group `bench` of pyproject.toml brings the peers. Figures differ from machine to machine and
from hour to hour: look at the ratios within one run.
{quick}
{about}

«Holds» says whether the bar is reached that localconc sets itself. A floor is what two bare SQLite write transactions
cost on the same kind of file. A bare hand-over is one transaction that names the next waiter and one datagram to it.
«Its due» is an equal share of all that was acquired. POSIX and `multiprocessing` semaphores lose a slot for good with
each process that is killed while it holds one; portalocker, filelock, fasteners and diskcache keep no order.
"""
QUICK = "\nThis was a quick run (`--quick`): smaller sizes, few rounds, figures that say little.\n"
PICTURES = """\
## Pictures

How long requests waited under contention, on a logarithmic scale:

![Wait times under contention](wait-times.svg)

Throughput against the number of processes, with the share that the worst-served process got:

![Throughput against the number of processes](throughput.svg)
"""


def write(folder: Path, about: Mapping[str, str], reports: Mapping[str, Report], quick: bool) -> None:
    """Write the document and both pictures into a folder."""
    caption = f"{about['machine']}; {about['python']}, SQLite {about['sqlite']}; {COMMAND}"
    rates = _curves(reports["throughput"], throughput.PER_SECOND)
    shares = _curves(reports["throughput"], throughput.DUE)
    folder.mkdir(parents=True, exist_ok=True)
    picture.draw_waits(reports["contention"].quantiles, caption, folder / "wait-times.svg")
    picture.draw_throughput(rates, shares, caption, folder / "throughput.svg")
    head = HEAD.format(command=COMMAND, about=_about(about), quick=QUICK if quick else "")
    tables = "\n".join(_section(name, report) for name, report in reports.items() if report.rows)
    (folder / "BENCHMARKS.md").write_text(f"{head}\n{tables}\n{PICTURES}", encoding="utf-8")


def _about(about: Mapping[str, str]) -> str:
    return "\n".join(f"- {what}: {value}" for what, value in about.items() if value != "n/a")


def _section(name: str, report: Report) -> str:
    lines = [
        f"## {name.replace('_', ' ').capitalize()}",
        "",
        "| what | measured | bar | holds | peers |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(row) for row in report.rows), ""])


def _line(row: Row) -> str:
    what = f"{row.what}<br>{row.note}" if row.note else row.what
    peers = ", ".join(f"{name} {table.figure(value)}" for name, value in row.peers.items() if value is not None)
    cells = [what, table.measured(row), table.bar(row), VERDICTS[row.met], peers]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _curves(report: Report, what: str) -> dict[str, list[tuple[float, float]]]:
    chosen = [curve for curve in report.curves if curve.what.startswith(f"{what}: ")]
    return {curve.what.removeprefix(f"{what}: "): [(size, figure) for size, figure in curve.points] for curve in chosen}
