"""The timeline on a terminal: a line for each holder."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from localconc.cli.output.text import duration_text
from localconc.cli.output.timeline.clock import ticks, window_text
from localconc.cli.output.timeline.words import facts, headline, limit_text, middle_shortened

if TYPE_CHECKING:
    from localconc.cli.output.timeline.curves import Curve
    from localconc.cli.output.timeline.lanes import Lane
    from localconc.cli.output.timeline.model import Bar, Group, Timeline

MIN_WIDTH = 40
_MAX_NAME_CELLS = 36
_CAUSED_CELLS = 7

#: With fewer cells than these, what tells a holder from others is left out.
_MIN_DETAIL_CELLS = 4


class Signs:
    """What stands for what, in Unicode or in ASCII."""

    def __init__(self, ascii_only: bool) -> None:
        self.waiting, self.holding, self.killed, self.instant = ".#x+" if ascii_only else "·█✕◆"
        self.edge = "|" if ascii_only else "│"
        self.levels = "123456789+" if ascii_only else "▁▂▃▄▅▆▇█"
        self.dot = "-" if ascii_only else "·"
        self.ellipsis = ".." if ascii_only else "…"


_STYLES = {"waiting": "yellow", "holding": "blue", "notable": "bold red", "killed": "bold magenta"}


def end_shortened(text: str, cells: int) -> str:
    """Shorten a text at its end, but not within a number, and no process id; "" if nothing useful would remain."""
    if cell_len(text) <= cells:
        return text
    before, _, last = text.rpartition("pid ")
    if last.isdigit():
        text = before
    kept = text[: len(set_cell_size(text, max(cells - 1, 0)).rstrip())]
    if kept[-1:].isdigit() and text[len(kept) : len(kept) + 1].isdigit():
        kept = kept.rstrip("0123456789,")
    kept = kept.rstrip(" ·")
    return f"{kept}…" if len(kept) >= _MIN_DETAIL_CELLS else ""


def timeline_text(timeline: Timeline, width: int, *, ascii_only: bool) -> list[Text]:
    """Draw a timeline in lines of at most this many cells."""
    return _Lines(timeline, max(width, MIN_WIDTH), Signs(ascii_only)).draw()


class _Lines:
    """The lines drawn so far, and how moments become cells."""

    def __init__(self, timeline: Timeline, width: int, signs: Signs) -> None:
        self._timeline = timeline
        self._signs = signs
        self._width = width
        self._name_cells = min(_MAX_NAME_CELLS, (width - _CAUSED_CELLS) // 3)
        self._cells = width - self._name_cells - _CAUSED_CELLS - 2
        self._span = max(timeline.until - timeline.since, 1e-6)
        self._lines: list[Text] = []

    def draw(self) -> list[Text]:
        """Draw everything."""
        for line in wrap(headline(self._timeline), self._width):
            self._add((line, "bold"))
        self._add((window_text(self._timeline.since, self._timeline.until), "dim"))
        for group in self._timeline.groups:
            self._add()
            self._group(group)
        self._add()
        self._legend()
        return self._lines

    def _group(self, group: Group) -> None:
        self._add((group.name, "bold"), ("  ", ""), (limit_text(group), "dim"))
        for line in wrap(f" {self._signs.dot} ".join(facts(group)), self._width):
            self._add((line, "dim"))
        for lane in group.lanes:
            self._lane(lane, group)
        if group.waiting.peak:
            levels = [(self._level(level, group.waiting.peak), "yellow") for level in self._peaks(group.waiting)]
            name = self._plain(end_shortened("waiting at once", self._name_cells - 1))
            self._row(name, "dim", f"{group.waiting.peak:.0f} max", "dim", levels)
        self._axis()

    def _lane(self, lane: Lane, group: Group) -> None:
        cells = [(" ", "")] * self._cells
        for bar in lane.bars:
            first, last = self._cell(bar.waiting_since), self._cell(bar.admitted_or_now)
            if bar.waited_seconds > 0:
                self._fill(cells, first, last, self._signs.waiting, _STYLES["waiting"])
        for bar in lane.bars:
            self._hold(cells, bar, "notable" if bar.caused_seconds >= group.notable_seconds else "holding")
        caused = lane.caused_seconds
        notable = any(bar.caused_seconds >= group.notable_seconds for bar in lane.bars)
        self._row(
            self._name(lane), "", duration_text(caused) if caused > 0.001 else "", "red" if notable else "dim", cells
        )

    def _hold(self, cells: list[tuple[str, str]], bar: Bar, kind: str) -> None:
        if bar.ending == "waiting" or not self._is_in_window(bar):
            return
        first, last = self._cell(bar.admitted_or_now), self._cell(bar.hold_end)
        if bar.ending == "instant":
            cells[first] = (self._signs.instant, _STYLES[kind])
            return
        self._fill(cells, first, last, self._signs.holding, _STYLES[kind])
        if bar.ending == "killed":
            cells[last] = (self._signs.killed, _STYLES["killed"])
        if bar.ending == "unseen":
            cells[min(last + 1, len(cells) - 1)] = ("?", "dim")

    def _is_in_window(self, bar: Bar) -> bool:
        return bar.hold_end >= self._timeline.since and bar.admitted_or_now <= self._timeline.until

    @staticmethod
    def _fill(cells: list[tuple[str, str]], first: int, last: int, sign: str, style: str) -> None:
        cells[first : last + 1] = [(sign, style)] * (last + 1 - first)

    def _cell(self, moment: float) -> int:
        cell = int((moment - self._timeline.since) / self._span * self._cells)
        return min(max(cell, 0), self._cells - 1)

    def _peaks(self, curve: Curve) -> list[float]:
        """The highest level within each cell."""
        peaks = [0.0] * self._cells
        ends = [moment for moment, _ in curve.points[1:]] + [self._timeline.until]
        for (moment, level), end in zip(curve.points, ends, strict=True):
            if end < self._timeline.since or moment > self._timeline.until:
                continue
            for cell in range(self._cell(moment), self._cell(end) + 1):
                peaks[cell] = max(peaks[cell], level)
        return peaks

    def _level(self, level: float, peak: float) -> str:
        if not level:
            return " "
        signs = self._signs.levels
        step = level if len(signs) == 10 else round(level / peak * len(signs))
        return signs[min(max(int(step), 1), len(signs)) - 1]

    def _name(self, lane: Lane) -> str:
        room = self._name_cells - 1
        if not lane.title:
            return ""
        title = self._plain(middle_shortened(lane.title, room))
        detail = self._plain(end_shortened(lane.detail, room - cell_len(title) - 2))
        return f"{title}  {detail}" if detail else title

    def _row(self, name: str, name_style: str, figure: str, style: str, cells: list[tuple[str, str]]) -> None:
        line = Text()
        line.append(set_cell_size(name, self._name_cells - 1), name_style)
        line.append(f"{figure:>{_CAUSED_CELLS}} ", style)
        line.append(self._signs.edge, "dim")
        for sign, cell_style in cells:
            line.append(sign, cell_style)
        line.rstrip()
        self._lines.append(line)

    def _axis(self) -> None:
        labels = [" "] * (self._cells + 1)
        free = 0
        for moment, label in ticks(self._timeline.since, self._timeline.until, max(self._cells // 12, 2)):
            cell = self._cell(moment)
            if cell >= free and cell + len(label) <= len(labels):
                labels[cell : cell + len(label)] = label
                free = cell + len(label) + 2
        self._add((" " * (self._name_cells + _CAUSED_CELLS + 1) + "".join(labels).rstrip(), "dim"))

    def _legend(self) -> None:
        signs = self._signs
        self._add(
            (signs.waiting, "yellow"), (" waiting  ", "dim"), (signs.holding, "blue"), (" holding  ", "dim"),
            (signs.holding, "bold red"), (" held others up most  ", "dim"),
            (signs.killed, "bold magenta"), (" killed", "dim"),
        )  # fmt: skip
        self._add(("Beside each name: how long others waited because of it", "dim"))

    def _add(self, *parts: tuple[str, str]) -> None:
        line = Text.assemble(*((self._plain(text), style) for text, style in parts))
        if line.cell_len > self._width:
            line.truncate(self._width - len(self._signs.ellipsis))
            line.append(self._signs.ellipsis)
        self._lines.append(line)

    def _plain(self, text: str) -> str:
        """A text as the terminal can show it."""
        if self._signs.edge != "|":
            return text
        return text.replace(" · ", " - ").replace("…", "~").encode("ascii", "backslashreplace").decode()
