"""Statistics in Prometheus's text format, for the textfile collector of a node exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from localconc.cli.output.text import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from localconc._engine.core.history import Percentiles, Statistics

_QUANTILES = (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99"), ("1", "max"))


class _Gauge(NamedTuple):
    name: str
    help: str
    figure: Callable[[Statistics], float | None]


class _Summary(NamedTuple):
    name: str
    help: str
    spread: Callable[[Statistics], Percentiles | None]


# All are gauges and quantiles of the window, no counters: the history is bounded, so a count can fall.
_GAUGES = (
    _Gauge("localconc_window_seconds", "Length of the window.", lambda one: (one.until - one.since).total_seconds()),
    _Gauge("localconc_window_acquisitions", "Calls admitted within the window.", lambda one: one.acquisitions),
    _Gauge("localconc_window_refusals", "Calls refused or given up within the window.", lambda one: one.refusals),
    _Gauge("localconc_utilization_ratio", "Share of the slots in use within the window.", lambda one: one.utilization),
)
_SUMMARIES = (
    _Summary("localconc_waited_seconds", "How long admitted calls waited.", lambda one: one.waited_seconds),
    _Summary("localconc_held_seconds", "How long slots were held.", lambda one: one.held_seconds),
)


def prometheus_text(statistics: Sequence[Statistics]) -> str:
    """Write statistics of limits; a figure without a case is left out."""
    labels = _labels([one.name for one in statistics])
    return "".join(
        [line for gauge in _GAUGES for line in _gauge(gauge, statistics, labels)]
        + [line for summary in _SUMMARIES for line in _summary(summary, statistics, labels)]
    )


def _gauge(gauge: _Gauge, statistics: Sequence[Statistics], labels: list[str]) -> Iterator[str]:
    samples = [
        f'{gauge.name}{{limit="{label}"}} {_number(figure)}\n'
        for one, label in zip(statistics, labels, strict=True)
        if (figure := gauge.figure(one)) is not None
    ]
    if samples:
        yield from (f"# HELP {gauge.name} {gauge.help}\n", f"# TYPE {gauge.name} gauge\n", *samples)


def _summary(summary: _Summary, statistics: Sequence[Statistics], labels: list[str]) -> Iterator[str]:
    samples = [
        f'{summary.name}{{limit="{label}",quantile="{quantile}"}} {_number(getattr(spread, field))}\n'
        for one, label in zip(statistics, labels, strict=True)
        if (spread := summary.spread(one)) is not None
        for quantile, field in _QUANTILES
    ]
    if samples:
        yield from (f"# HELP {summary.name} {summary.help}\n", f"# TYPE {summary.name} summary\n", *samples)


def _labels(names: Sequence[str]) -> list[str]:
    """Write names as label values.

    Control and bidirectional characters, which the format allows, would act on the terminal of a reader of the file,
    so they are written out. If two names become the same by that, a number is added: Prometheus rejects a whole file
    for one repeated sample.
    """
    labels: list[str] = []
    for name in names:
        # The format has its own way of writing a line break.
        plain = "\n".join(literal(line) for line in name.split("\n"))
        label, number = _escaped(plain), 2
        while label in labels:
            label, number = _escaped(f"{plain} ({number})"), number + 1
        labels.append(label)
    return labels


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(figure: float) -> str:
    return repr(round(figure, 6)) if isinstance(figure, float) else str(figure)
