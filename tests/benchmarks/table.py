"""How a report is printed."""

from collections.abc import Mapping

from tests.benchmarks.report import Report, Row

VERDICTS = {True: "ok", False: "MISSED", None: ""}
WIDTHS = "{:<72} {:>11} {:>13} {:>7}  {}"


def head(machine: Mapping[str, str]) -> str:
    """The machine and the versions, then the names of the columns."""
    words = ", ".join(f"{what} {value}" for what, value in machine.items() if value != "n/a")
    return f"{words}\n\n  " + WIDTHS.format("what", "measured", "bar", "ratio", "")


def text(name: str, report: Report, seconds: float) -> str:
    """One benchmark: a line for each row, with its note and its peers below it."""
    lines = [f"{name} ({seconds:.0f} s)"]
    for row in report.rows:
        lines.extend(row_lines(row))
    return "\n".join(lines)


def summary(reports: Mapping[str, Report]) -> str:
    """How many bars are met, and the names of those that are not."""
    rows = [row for report in reports.values() for row in report.rows]
    missed = [row.what for row in rows if row.met is False]
    lines = [f"{sum(row.met is True for row in rows)} bars met, {len(missed)} missed"]
    return "\n".join([*lines, *(f"  MISSED  {what}" for what in missed)])


def figure(value: float | None) -> str:
    """A number at a length that can be read, or «n/a»."""
    if value is None:
        return "n/a"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def measured(row: Row) -> str:
    """The figure with its unit."""
    return f"{figure(row.measured)} {row.unit}".strip()


def bar(row: Row) -> str:
    """What the figure must reach, or nothing."""
    sign = "≤" if row.better == "lower" else "≥"
    return "" if row.bar is None else f"{sign} {figure(row.bar)} {row.unit}".strip()


def row_lines(row: Row) -> list[str]:
    """One row: what, the figure, the bar, the verdict; the note and the peers below."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    lines = ["  " + WIDTHS.format(row.what, measured(row), bar(row), ratio, VERDICTS[row.met]).rstrip()]
    if row.note:
        lines.append(f"      {row.note}")
    if row.peers:
        lines.append("      peers: " + ", ".join(f"{name} {figure(value)}" for name, value in row.peers.items()))
    return lines
