"""Two pictures for `.github/BENCHMARKS.md`: wait times under contention, and throughput against processes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OURS = "localconc"
COLOURS = {
    OURS: "#0a7d3c",
    "portalocker": "#c2571a",
    "filelock": "#b8860b",
    "fasteners": "#7a3fa0",
    "diskcache": "#b0236b",
    "posix_ipc": "#4763b8",
    "multiprocessing": "#8a8f98",
}
SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999)

Points = Sequence[tuple[float, float]]


def draw_waits(quantiles: Mapping[str, Points], caption: str, target: Path) -> None:
    """One line for each contender: how long the luckiest half, nine tenths, … of all requests waited."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    for name, points in _ours_first(quantiles):
        seen = [(_nines(share), max(wait, 0.01)) for share, wait in points if share <= SHARES[-1]]
        _line(axes, name, seen)
    axes.set_yscale("log")
    axes.set_xticks([_nines(share) for share in SHARES], [f"{100 * share:g} %" for share in SHARES])
    axes.set_xlim(0, _nines(SHARES[-1]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("share of requests that waited no longer")
    axes.set_ylabel("wait in milliseconds")
    axes.set_title("How long 8 processes waited for 4 slots, each held for 2 ms", loc="left", fontsize=12)
    axes.legend(frameon=False, loc="upper left")
    _save(figure, [axes], caption, target)


def draw_throughput(rates: Mapping[str, Points], shares: Mapping[str, Points], caption: str, target: Path) -> None:
    """Above, how many pairs all processes made together; below, how much of its due the worst-served one got."""
    pyplot = _pyplot()
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(8, 6.4), layout="constrained", sharex=True)
    for axes, curves in ((above, rates), (below, shares)):
        for name, points in _ours_first(curves):
            _line(axes, name, points, marker="o")
        axes.set_ylim(bottom=0)
    sizes = [size for size, _ in rates[OURS]]
    below.set_xscale("log", base=2)
    below.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
    below.set_xticks([], minor=True)
    below.set_xlabel("processes that want the slot")
    above.set_ylabel("pairs a second")
    below.set_ylabel("worst-served process,\n% of its due")
    above.set_title("Limit 1, each slot held for 1 ms: throughput, and who pays for it", loc="left", fontsize=12)
    above.legend(frameon=False, loc="lower left", ncols=2)
    _save(figure, [above, below], caption, target)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": OURS, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11})
    from matplotlib import pyplot

    return pyplot


def _ours_first(curves: Mapping[str, Points]) -> list[tuple[str, Points]]:
    return sorted(curves.items(), key=lambda item: item[0] != OURS)


def _line(axes: Any, name: str, points: Points, marker: str = "") -> None:
    width, above = (2.6, 3) if name == OURS else (1.6, 2)
    axes.plot(
        *zip(*points, strict=True),
        label=name,
        color=COLOURS.get(name),
        linewidth=width,
        zorder=above,
        marker=marker,
        markersize=4,
    )


def _save(figure: Any, panels: Sequence[Any], caption: str, target: Path) -> None:
    for axes in panels:
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(caption, fontsize=8, color="#666666", x=0.01, ha="left")
    figure.savefig(target, format="svg", facecolor="white", metadata={"Date": None})


def _nines(share: float) -> float:
    """Each further nine takes the same room on the axis."""
    return -math.log10(1 - share)
