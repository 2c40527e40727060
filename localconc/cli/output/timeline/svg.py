"""The timeline as a picture for a page of text: SVG that follows the reader's colour scheme."""

from __future__ import annotations

from html import escape
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING

from localconc.cli.output.text import duration_text
from localconc.cli.output.timeline.clock import ticks, window_text
from localconc.cli.output.timeline.words import facts, headline, limit_text, middle_shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localconc.cli.output.timeline.curves import Curve
    from localconc.cli.output.timeline.lanes import Lane
    from localconc.cli.output.timeline.model import Bar, Group, Timeline

WIDTH = 1000
LEFT = 270
RIGHT = WIDTH - 16
_HEADLINE, _HEAD, _TITLE, _CURVE, _LANE, _GAP, _FOOT = 22, 62, 30, 40, 22, 16, 34

#: A picture with more lanes than this for a limit would not be read; the busiest ones stay.
MAX_LANES = 40

#: Of the bars that fall on one pixel, a single one is drawn.
_MIN_STEP = 0.4

_HEADLINE_LETTERS = 100

#: Average width of a letter, as a part of the font's size; of a bold one, more.
_LETTER = 0.57
_BOLD_LETTER = 0.65

_STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
.surface { fill: #fff } .text { fill: #1c2430 } .muted { fill: #5b6675; font-size: 11px }
.head { font-size: 16px; font-weight: 600 } .name { font-size: 14px; font-weight: 650 } .end { text-anchor: end }
.middle { text-anchor: middle } .line { fill: #d5dae1 } .faint { fill: #eff1f4 }
.waiting { fill: #fbe3c0 } .edge { fill: #d9942e } .holding, .used { fill: #4a78b5 } .notable { fill: #b3401a }
.killed { fill: #7d0d2b } .on { fill: #fff; font-size: 11px; font-weight: 500 } .wait { fill: #6b4105; font-size: 11px }
.strong { fill: #b3401a; font-size: 11px; font-weight: 650 } .limit { stroke: #a3123a; stroke-dasharray: 5 4 }
.bound { fill: #a3123a; font-size: 11px; font-weight: 600 } .area { fill-opacity: .28; stroke-width: 1.2 }
.used { stroke: #4a78b5 } .edge.area { stroke: #d9942e }
.cross { stroke: #fff; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) {
.surface { fill: #14181f } .text { fill: #e8ebf0 } .muted { fill: #9aa5b4 }
.line { fill: #343c49 } .faint { fill: #1f252f }
.waiting { fill: #4c3a1c } .edge { fill: #c98f34 } .holding, .used { fill: #6d9ddb } .notable { fill: #f08a5d }
.killed { fill: #ff5c7f } .on { fill: #0c1420 } .wait { fill: #f5d9a8 } .strong { fill: #f08a5d }
.used { stroke: #6d9ddb } .edge.area { stroke: #c98f34 } .limit { stroke: #ff8099 }
.bound { fill: #ff8099 } .cross { stroke: #14181f }
}
"""


def timeline_svg(timeline: Timeline) -> str:
    """Draw a timeline as a picture."""
    picture = _Picture(timeline)
    return picture.draw()


class _Picture:
    """Rows from top to bottom. Each method draws one row and moves down by its height."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        margin = max(timeline.until - timeline.since, 1e-3) * 0.01
        self._begin, self._end = timeline.since - margin, timeline.until + margin
        self._parts: list[str] = []
        self._y = self._top = 0.0

    def draw(self) -> str:
        title = headline(self._timeline)
        for line in wrap(title, _HEADLINE_LETTERS, max_lines=2, placeholder=" …"):
            self._y += _HEADLINE
            self._text("text head", 16, self._y + 6, line)
        self._text("muted", 16, self._y + 28, window_text(self._timeline.since, self._timeline.until))
        self._legend(16, self._y + 48)
        self._y += _HEAD
        self._top = self._y
        for group in self._timeline.groups:
            self._group(group)
        self._axis()
        height = round(self._y + _FOOT)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
            f'<rect class="surface" width="{WIDTH}" height="{height}"/>' + "\n".join(self._parts) + "</svg>\n"
        )

    def _legend(self, x: float, y: float) -> None:
        for classes, words in (
            ("waiting", "waiting"),
            ("holding", "holding"),
            ("notable", "holding, held others up most"),
            ("killed", "killed"),
        ):
            self._rect(classes, x, y - 9, 18, 10)
            self._text("muted", x + 24, y, words, 400)
            x += 46 + len(words) * 11 * _LETTER

    def _group(self, group: Group) -> None:
        self._rect("line", 0, self._y, WIDTH, 1)
        name = self._text("text name", 16, self._y + 21, group.name, LEFT - 32, size=14)
        self._text("muted", 24 + name, self._y + 21, limit_text(group), LEFT - 30 - name)
        self._text("muted", LEFT + 6, self._y + 21, " · ".join(facts(group)), RIGHT - LEFT)
        self._y += _TITLE
        self._curve(group.used, "used area", "slots in use", group.limit)
        lanes, hidden = _busiest(group)
        most = max((lane.caused_seconds for lane in group.lanes), default=0.0)
        for lane in lanes:
            self._lane(lane, group, most)
        if hidden:
            self._text("muted", 16, self._y + 15, f"and {hidden} more", LEFT - 32)
            self._y += _LANE
        self._curve(group.waiting, "edge area", "waiting at once", None)
        self._y += _GAP

    def _lane(self, lane: Lane, group: Group, most: float) -> None:
        y = self._y
        title = self._text("text", 16, y + 15, middle_shortened(lane.title, 26), size=12)
        self._text("muted", 22 + title, y + 15, lane.detail, LEFT - 84 - title)
        if lane.caused_seconds > 0.001:
            notable = any(bar.caused_seconds >= group.notable_seconds for bar in lane.bars)
            self._text("strong end" if notable else "muted end", LEFT - 10, y + 13, duration_text(lane.caused_seconds))
            width = max(46 * lane.caused_seconds / most, 1)
            self._rect("notable" if notable else "line", LEFT - 10 - width, y + 17, width, 2)
        bars = [bar for bar in lane.bars if bar.hold_end >= self._begin and bar.waiting_since <= self._end]
        painted = float("-inf")
        shapes: list[tuple[str, str]] = []
        for bar in bars:
            end = self._x(bar.hold_end)
            if end - painted < _MIN_STEP and bar.ending != "killed":
                continue
            shapes += self._shapes(bar, group, y + 3, _LANE - 6)
            painted = end
        for classes, drawn in groupby(
            sorted(shapes, key=lambda shape: _LAYERS.index(shape[0])), lambda shape: shape[0]
        ):
            self._parts.append(f'<path class="{classes}" d="{"".join(path for _, path in drawn)}"/>')
        for bar in bars:
            self._labels(bar, group, y + 15)
        self._y += _LANE

    def _shapes(self, bar: Bar, group: Group, y: float, height: float) -> Iterator[tuple[str, str]]:
        begin, admitted, end = (self._x(at) for at in (bar.waiting_since, bar.admitted_or_now, bar.hold_end))
        if admitted - begin > 0.3:
            yield "waiting", _box(begin, y + 2, admitted - begin, height - 5)
            yield "edge", _box(begin, y + height - 4, admitted - begin, 2)
        if bar.ending == "waiting":
            yield "edge", _arrow(admitted, y + height / 2)
            return
        holding = "notable" if bar.caused_seconds >= group.notable_seconds else "holding"
        if bar.ending == "instant":
            yield holding, f"M{admitted:.1f} {y + 2:.1f}l5 6l-5 6l-5-6z"
            return
        yield holding, _box(admitted, y, max(end - admitted, 1.2), height)
        if bar.ending == "held":
            yield holding, _arrow(end, y + height / 2)
        if bar.ending == "killed":
            width = min(14.0, max(end - admitted, 3.0))
            yield "killed", _box(end - width, y, width, height)
            if width == 14.0:
                yield "cross", f"M{end - 10.5:.1f} {y + 4.5:.1f}l7 7m0-7l-7 7"

    def _labels(self, bar: Bar, group: Group, y: float) -> None:
        begin, admitted, end = (self._x(at) for at in (bar.waiting_since, bar.admitted_or_now, bar.hold_end))
        if bar.ending == "unseen":
            self._text("muted", end + 4, y, "?")
        killed = 14 if bar.ending == "killed" else 0
        for classes, left, right, seconds in (
            ("wait", begin, admitted, bar.waited_seconds),
            ("on", admitted, end - killed, bar.held_seconds),
        ):
            words = duration_text(seconds)
            if right - left > len(words) * 11 * _LETTER + 4:
                self._text(f"{classes} middle", (left + right) / 2, y - (classes == "wait"), words)

    def _curve(self, curve: Curve, classes: str, words: str, limit: int | None) -> None:
        top, bottom = self._y + 8, self._y + _CURVE - 6
        most = max(curve.peak, limit or 0, 1)
        self._text("muted", 16, bottom - 2, words)
        self._text("muted end", LEFT - 10, bottom - 2, f"at most {round(curve.peak, 1):g}")
        path = [f"M{LEFT} {bottom:.1f}"]
        level, painted = 0.0, float("-inf")
        for moment, figure in curve.points:
            x, y = self._x(moment), bottom - figure / most * (bottom - top)
            if curve.stepped and x - painted < _MIN_STEP and figure <= level:
                continue
            path.append(f"H{x:.1f}V{y:.1f}" if curve.stepped else f"L{x:.1f} {y:.1f}")
            level, painted = figure, x
        end = self._x(min(max(self._timeline.until, self._begin), self._end))
        path.append(f"H{end:.1f}V{bottom:.1f}z" if curve.stepped else f"V{bottom:.1f}z")
        self._parts.append(f'<path class="{classes}" d="{"".join(path)}"/>')
        self._rect("line", LEFT, bottom, RIGHT - LEFT, 1)
        if limit is not None:
            y = bottom - limit / most * (bottom - top)
            words = f"limit {limit}"
            room = len(words) * 11 * _LETTER + 14
            self._parts.append(f'<path class="limit" d="M{LEFT} {y:.1f}H{RIGHT - room:.1f}"/>')
            self._rect("surface", RIGHT - room, y - 7, room, 14)
            self._text("bound end", RIGHT - 2, y + 4, words)
        self._y += _CURVE

    def _axis(self) -> None:
        for moment, label in ticks(self._begin, self._end, 7):
            x = self._x(moment)
            self._parts.insert(
                0, f'<rect class="faint" x="{x:.1f}" y="{self._top:.0f}" width="1" height="{self._y - self._top:.0f}"/>'
            )
            self._text("muted middle", min(x, RIGHT - 22), self._y + 14, label)

    def _x(self, moment: float) -> float:
        part = (moment - self._begin) / (self._end - self._begin)
        return LEFT + min(max(part, 0.0), 1.0) * (RIGHT - LEFT)

    def _rect(self, classes: str, x: float, y: float, width: float, height: float) -> None:
        self._parts.append(
            f'<rect class="{classes}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        )

    def _text(self, classes: str, x: float, y: float, words: str, room: float = WIDTH, size: float = 11) -> float:
        """Write words, as many as there is room for; return about how wide they are."""
        width = size * (_BOLD_LETTER if size > 12 else _LETTER)
        letters = int(room / width)
        shown = words if len(words) <= letters else f"{words[: letters - 1].rstrip()}…" if letters > 3 else ""
        if shown:
            self._parts.append(f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}">{escape(shown)}</text>')
        return len(shown) * width


#: What is drawn later covers what is drawn earlier.
_LAYERS = ("waiting", "edge", "holding", "notable", "killed", "cross")


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z"


def _arrow(x: float, y: float) -> str:
    return f"M{x:.1f} {y - 6:.1f}l7 6l-7 6z"


def _busiest(group: Group) -> tuple[list[Lane], int]:
    """Choose the lanes that caused and suffered the most waiting, in their order, and say how many are left out."""
    if len(group.lanes) <= MAX_LANES:
        return group.lanes, 0
    weights = {
        number: lane.caused_seconds + sum(bar.waited_seconds for bar in lane.bars)
        for number, lane in enumerate(group.lanes)
    }
    kept = sorted(sorted(weights, key=lambda number: -weights[number])[:MAX_LANES])
    return [group.lanes[number] for number in kept], len(group.lanes) - len(kept)
