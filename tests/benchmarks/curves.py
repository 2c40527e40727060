"""What acquire and release cost as everything else grows."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks import crowds, semaphores, task_crowds
from tests.benchmarks.growth import Setting, growth
from tests.benchmarks.report import Curve, Effort, Report, Row

BAR_GROWTH = 1.3
BAR_CONTRACT = 1.1


@dataclass(frozen=True)
class Plan:
    """One curve: what is measured, what grows and to which sizes; `None` stands for «at most linear»."""

    what: str
    grows: str
    setting: Setting
    sizes: Sequence[int]
    quick_sizes: Sequence[int]
    repeat: int = 400
    bar: float | None = BAR_GROWTH
    needs: str = "localconc.sync"


ASYNCIO = "localconc.asyncio"
PAIR = "acquire + release"

PLANS = (
    Plan(PAIR, "limits", crowds.one_of_many_limits, [1, 100_000], [1, 5_000], bar=BAR_CONTRACT),
    Plan(f"{PAIR}, scattered", "limits", crowds.all_of_many_limits, [1, 100, 100_000], [1, 5_000]),
    Plan(PAIR, "waiting processes", crowds.waiting_processes, [0, 20, 200], [0, 8]),
    Plan(PAIR, "waiting tasks", task_crowds.waiting_tasks, [1, 1_000], [1, 1_000], bar=BAR_CONTRACT, needs=ASYNCIO),
    Plan(
        "hand-over",
        "waiting tasks",
        task_crowds.queue_of_tasks,
        [10, 100, 10_000],
        [10, 1_000],
        needs=ASYNCIO,
    ),
    Plan(PAIR, "holders", crowds.holders, [1, 100, 10_000], [1, 1_000]),
    Plan(PAIR, "names in the call", crowds.names_in_the_call, [1, 2, 8, 32], [1, 32], bar=None),
    Plan(PAIR, "pairs before", crowds.history, [1, 1_000, 100_000], [1, 3_000]),
)


def measure(effort: Effort) -> Report:
    """Every curve, with its end against its beginning."""
    rows: list[Row] = []
    curves: list[Curve] = []
    for plan in PLANS:
        sizes = effort.choose(plan.sizes, plan.quick_sizes)
        bar = plan.bar or sizes[-1] / sizes[0]
        if not semaphores.installed(plan.needs):
            rows.append(Row(f"{plan.what}, {sizes[0]:,} … {sizes[-1]:,} {plan.grows}", None, "×", bar))
            continue
        figures = growth(plan.setting, sizes, plan.repeat, effort.choose(15, 5))
        drawn = Curve(plan.what, plan.grows, "µs", figures)
        curves.append(drawn)
        rows.append(drawn.row(bar, note=_points(drawn)))
    return Report(rows, curves)


def _points(drawn: Curve) -> str:
    return "  ".join(f"{size:,}: {figure:.0f}" for size, figure in drawn.points) + f" {drawn.unit}"
