"""Tables that fit the screen: on a narrow one, cells fold and the less important columns are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many cells of what folds or is shortened stay on one line, however narrow the screen is.
MIN_CELLS = 8

_GAP_CELLS = 2


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        gives_way: whether it may be narrower than its cells are: they fold, or are shortened if they are `no_wrap`.
    """

    header: str
    cells: Sequence[Text]
    gives_way: bool = False
    is_right: bool = False

    @property
    def width(self) -> int:
        """How many cells of the screen it needs at least."""
        longest = max((cell.cell_len for cell in self.cells), default=0)
        return max(len(self.header), min(longest, MIN_CELLS) if self.gives_way else longest)


def fitted_table(columns: Sequence[Column], width: int, dispensable: Sequence[str] = ()) -> Table:
    """Lay columns out as a table without lines, of at most this many cells.

    Args:
        columns: what to show, from left to right.
        width: how many cells the screen has.
        dispensable: headers of the columns that are left out if there is no room, the least important first.
    """
    kept = list(columns)
    for header in dispensable:
        if sum(column.width + _GAP_CELLS for column in kept) - _GAP_CELLS <= width:
            break
        kept = [column for column in kept if column.header != header]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP_CELLS, 0, 0), header_style="dim")
    for column in kept:
        table.add_column(
            column.header,
            no_wrap=not column.gives_way,
            overflow="fold",
            min_width=column.width,
            justify="right" if column.is_right else "left",
        )
    for row in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*row)
    return table
