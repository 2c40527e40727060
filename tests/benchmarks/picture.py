"""Draw the wait times under contention: `python -m tests.benchmarks.picture figures.json picture.svg`."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMAND = "python -m tests.benchmarks contention"
OURS = "localconc"
COLOURS = {
    OURS: "#0a7d3c",
    "portalocker": "#c2571a",
    "diskcache": "#b0236b",
    "posix_ipc": "#4763b8",
    "multiprocessing": "#8a8f98",
}
SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999)


def draw(quantiles: dict[str, Sequence[tuple[float, float]]], caption: str, target: Path) -> None:
    """One line for each contender: how long the luckiest half, nine tenths, … of all requests waited."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": OURS, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    for name, points in sorted(quantiles.items(), key=lambda item: item[0] != OURS):
        _line(axes, name, points)
    axes.set_yscale("log")
    axes.set_xticks([_nines(share) for share in SHARES], [f"{100 * share:g} %" for share in SHARES])
    axes.set_xlim(0, _nines(SHARES[-1]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("share of requests that waited no longer")
    axes.set_ylabel("wait in milliseconds")
    axes.set_title("How long 8 processes waited for 4 slots, each held for 2 ms", loc="left", fontsize=12)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.supxlabel(caption, fontsize=8, color="#666666", x=0.01, ha="left")
    figure.savefig(target, format="svg", facecolor="white", metadata={"Date": None})


def _line(axes: Any, name: str, points: Sequence[tuple[float, float]]) -> None:
    seen = [(_nines(share), max(wait, 0.01)) for share, wait in points if share <= SHARES[-1]]
    width, above = (2.6, 3) if name == OURS else (1.6, 2)
    axes.plot(*zip(*seen, strict=True), label=name, color=COLOURS.get(name), linewidth=width, zorder=above)


def _nines(share: float) -> float:
    """Each further nine takes the same room on the axis."""
    return -math.log10(1 - share)


def main() -> None:
    """Read the figures, write the picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.picture", description=__doc__)
    parser.add_argument("figures", type=Path, help="what `python -m tests.benchmarks contention --json FILE` wrote")
    parser.add_argument("picture", type=Path, help="the SVG to write")
    options = parser.parse_args()
    told = json.loads(options.figures.read_text())
    about = told["about"]
    caption = f"{about['machine']}; {about['python']}, SQLite {about['sqlite']}; {COMMAND}"
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(told["benchmarks"]["contention"]["quantiles"], caption, options.picture)


if __name__ == "__main__":
    main()
