"""The timeline as a page of its own: HTML that needs nothing from the network."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING, Any

from localconc.cli.output.text import duration_text
from localconc.cli.output.timeline.lanes import names_of
from localconc.cli.output.timeline.words import facts, headline, limit_text, middle_shortened, victims_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc.cli.output.timeline.curves import Curve
    from localconc.cli.output.timeline.model import Bar, Caller, Group, HoldUp, Timeline

_SCRIPTS = ("page_data.js", "page_drawing.js", "page.js")
_STYLE = "page.css"

#: As the script numbers them.
_ENDINGS = ("released", "held", "killed", "unseen", "instant", "waiting")

#: The page keeps moments as whole microseconds from its first one.
_MICRO = 1e6

#: For the names of threads, labels and commands together, and for each of them at least.
MAX_TEXT_BYTES = 1_000_000
MIN_TEXT = 32

#: In the title.
_MAX_NAMES = 3

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; {policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · localconc timeline</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header>
<p class="window" id="window"></p>
<h1>{headline}</h1>
{hold_ups}
</header>
<main>
<div class="tools">
<ul class="legend">
<li><i class="key waiting"></i>waiting</li>
<li><i class="key holding"></i>holding</li>
<li><i class="key notable"></i>holding, held others up most</li>
<li><i class="key killed"></i>killed</li>
</ul>
<div class="buttons">
<button type="button" id="longest" title="Go to the next longest wait (W)">Longest wait</button>
<button type="button" id="out" title="Zoom out (−)" aria-label="Zoom out">−</button>
<button type="button" id="in" title="Zoom in (+)" aria-label="Zoom in">+</button>
<button type="button" id="fit" title="Show everything (0)">Fit</button>
<button type="button" id="theme" title="Light or dark (T)" aria-label="Light or dark">◐</button>
</div>
</div>
<div class="chart" id="chart" tabindex="0" role="application" aria-describedby="keys"
 aria-label="Timeline: {label}">
<canvas id="axis"></canvas>
<div class="scroller" id="scroller"><div class="spacer" id="spacer"><canvas id="lanes"></canvas></div></div>
<div class="tip" id="tip" role="status" hidden></div>
</div>
<p class="keys" id="keys">
<span><kbd>←</kbd> <kbd>→</kbd> or drag to pan</span>
<span><kbd>+</kbd> <kbd>−</kbd> or <kbd>Ctrl</kbd> and the wheel to zoom, or drag along the clock</span>
<span><kbd>0</kbd> everything</span>
<span><kbd>,</kbd> <kbd>.</kbd> bar by bar</span>
<span><kbd>W</kbd> next longest wait</span>
<span><kbd>Esc</kbd> clear</span>
</p>
<noscript>The picture needs JavaScript, which is part of this file and uses no network.</noscript>
</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def timeline_page(timeline: Timeline) -> str:
    """Draw a timeline as a page of HTML."""
    script = "\n".join(_resource(name) for name in _SCRIPTS)
    style = _resource(_STYLE)
    names = ", ".join(group.name for group in timeline.groups[:_MAX_NAMES])
    if len(timeline.groups) > _MAX_NAMES:
        names += f" and {len(timeline.groups) - _MAX_NAMES} more"
    return _PAGE.format(
        # Only these two texts are run; what a name smuggles in is not.
        policy=f"style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        title=escape(names),
        label=escape(names),
        style=style,
        headline=headline(timeline, _mark),
        hold_ups=_hold_ups(timeline),
        data=_embedded(_data(timeline)),
        script=script,
    )


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _mark(name: str) -> str:
    return f"<bdi>{escape(name)}</bdi>"


def _embedded(value: Any) -> str:
    """JSON that can't end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hold_ups(timeline: Timeline) -> str:
    if not timeline.hold_ups:
        return ""
    rows = "\n".join(_hold_up(timeline, number, hold_up) for number, hold_up in enumerate(timeline.hold_ups))
    return f'<ol class="holdups" aria-label="Who held others up most">\n{rows}\n</ol>'


def _hold_up(timeline: Timeline, number: int, hold_up: HoldUp) -> str:
    title, detail = names_of(hold_up.caller)
    share = hold_up.caused_seconds / timeline.hold_ups[0].caused_seconds
    return (
        f'<li><button type="button" data-holdup="{number}">'
        f'<span class="who">{_mark(title)} <small>{_mark(detail)}</small></span>'
        f'<span class="of">{_mark(timeline.groups[hold_up.group].name)}</span>'
        f'<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{share * 100:.1f}" height="8"/></svg>'
        f'<span class="caused">{duration_text(hold_up.caused_seconds)}</span>'
        f'<span class="victims">held up {victims_text(timeline, hold_up, _mark)}</span>'
        "</button></li>"
    )


def _data(timeline: Timeline) -> dict[str, Any]:
    callers: dict[Caller, int] = {}
    for group in timeline.groups:
        for bar in group.bars:
            callers.setdefault(bar.caller, len(callers))
    texts = {text: number for number, text in enumerate({text: 0 for caller in callers for text in caller[1:]})}
    origin = min((group.bars[0].waiting_since for group in timeline.groups), default=timeline.since)
    return {
        "origin": origin,
        "since": _micros(timeline.since, origin),
        "until": _micros(timeline.until, origin),
        "now": not timeline.ends_before_now,
        "texts": _bounded(list(texts)),
        "callers": [[caller.pid, *(texts[text] for text in caller[1:])] for caller in callers],
        "groups": [_group(group, callers, origin) for group in timeline.groups],
        "holdUps": [[hold_up.group, *_place(hold_up, timeline)] for hold_up in timeline.hold_ups],
    }


def _bounded(texts: list[str]) -> list[str]:
    """Shorten the longest texts if all of them are too long for a page."""
    most = MAX_TEXT_BYTES
    while most > MIN_TEXT and sum(min(len(text.encode()), most) for text in texts) > MAX_TEXT_BYTES:
        most //= 2
    return [middle_shortened(text, most) for text in texts]


def _place(hold_up: HoldUp, timeline: Timeline) -> tuple[int, int]:
    """Find the lane of the bar to show, and its number there."""
    return next(
        (lane_number, number)
        for lane_number, lane in enumerate(timeline.groups[hold_up.group].lanes)
        for number, bar in enumerate(lane.bars)
        if bar is hold_up.worst
    )


def _group(group: Group, callers: dict[Caller, int], origin: float) -> dict[str, Any]:
    return {
        "name": group.name,
        "limit": group.limit,
        "about": limit_text(group),
        "facts": " · ".join(facts(group)),
        "notable": round(group.notable_seconds * _MICRO),
        "lanes": [
            [lane.holder, lane.title, lane.detail, [_bar(bar, callers, origin) for bar in lane.bars]]
            for lane in group.lanes
        ],
        "used": _curve(group.used, origin),
        "waiting": _curve(group.waiting, origin),
    }


def _bar(bar: Bar, callers: dict[Caller, int], origin: float) -> list[Any]:
    fields: list[Any] = [
        callers[bar.caller],
        _micros(bar.waiting_since, origin),
        round(bar.waited_seconds * _MICRO),
        round(bar.held_seconds * _MICRO),
        _ENDINGS.index(bar.ending),
        bar.slots,
        round(bar.caused_seconds * _MICRO),
    ]
    return [*fields, list(bar.numbers)] if bar.numbers else fields


def _curve(curve: Curve, origin: float) -> dict[str, Any]:
    """Moments as differences, which are short, with the figures after them."""
    moments = [_micros(moment, origin) for moment, _ in curve.points]
    steps = (later - earlier for earlier, later in zip([0, *moments], moments, strict=False))
    figures: Iterable[float] = (int(figure) if curve.stepped else round(figure, 2) for _, figure in curve.points)
    return {"stepped": curve.stepped, "points": list(chain.from_iterable(zip(steps, figures, strict=True)))}


def _micros(moment: float, origin: float) -> int:
    return round((moment - origin) * _MICRO)
