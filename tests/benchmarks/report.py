"""What a benchmark says: rows with a bar, curves, and distributions of waits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeVar

T = TypeVar("T")

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class Row:
    """One figure beside what it must reach and what peers reach; `None` stands for «n/a»."""

    what: str
    measured: float | None
    unit: str
    bar: float | None = None
    better: Literal["lower", "higher"] = "lower"
    note: str = ""
    peers: Figures = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The figure in bars: at most 1 is well where lower is better, at least 1 where higher is."""
        if self.measured is None or not self.bar:
            return None
        return self.measured / self.bar

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; `None` where there is no bar, or no figure."""
        if self.measured is None or self.bar is None:
            return None
        return self.measured <= self.bar if self.better == "lower" else self.measured >= self.bar


@dataclass(frozen=True)
class Curve:
    """How one figure moves as something else grows."""

    what: str
    grows: str
    unit: str
    points: Sequence[tuple[int, float]]

    @property
    def spread(self) -> float:
        """The last figure as a multiple of the first."""
        return self.points[-1][1] / (self.points[0][1] or 1.0)  # memory may not have grown at first

    def row(self, bar: float, note: str = "") -> Row:
        """The whole curve as one row: last figure over the first."""
        ends = f"{self.points[0][0]:,} … {self.points[-1][0]:,} {self.grows}"
        return Row(f"{self.what}, {ends}", self.spread, "×", bar, note=note)


@dataclass(frozen=True)
class Report:
    """All that one benchmark found out."""

    rows: Sequence[Row]
    curves: Sequence[Curve] = ()
    quantiles: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """The same as plain values, for `--json`."""
        rows = [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in self.rows]
        curves = [{**asdict(curve), "spread": curve.spread} for curve in self.curves]
        return {"rows": rows, "curves": curves, "quantiles": dict(self.quantiles)}


@dataclass(frozen=True)
class Effort:
    """How thorough a run is."""

    quick: bool

    def choose(self, full: T, quick: T) -> T:
        """The first for a full run, the second for a quick one."""
        return quick if self.quick else full
