"""Contenders take turns, round after round, so that the machine's drift hits all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

Figure = TypeVar("Figure")

QUANTILES = [step / 100 for step in range(99)] + [
    0.99,
    0.993,
    0.995,
    0.997,
    0.998,
    0.999,
    0.9995,
    0.9999,
    1.0,
]


def interleaved(contenders: Mapping[str, Callable[[], Figure]], rounds: int) -> dict[str, list[Figure]]:
    """Run every contender once a round; each round starts with another one."""
    figures: dict[str, list[Figure]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            figures[name].append(contenders[name]())
    return figures


def medians(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each contender's rounds."""
    return {name: median(values) for name, values in figures.items()}


def paired_ratio(measured: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios within each round: what both suffered cancels out."""
    return median(one / other for one, other in zip(measured, reference, strict=True))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def quantiles(values: Sequence[float]) -> list[tuple[float, float]]:
    """The distribution as a short list of (share, value), fine at its far end."""
    ordered = sorted(values)
    return [(share, ordered[min(len(ordered) - 1, int(share * len(ordered)))]) for share in QUANTILES]


def seconds_each(repeat: int, act: Callable[[], object]) -> float:
    """Mean seconds of one call, over a batch."""
    turns = range(repeat)
    start = time.perf_counter()
    for _ in turns:
        act()
    return (time.perf_counter() - start) / repeat


def cpu_seconds_each(repeat: int, act: Callable[[], object]) -> float:
    """Mean processor time of one call in this process, over a batch."""
    turns = range(repeat)
    start = time.process_time()
    for _ in turns:
        act()
    return (time.process_time() - start) / repeat
