"""The timeline's page, also in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from localconc.cli.output.timeline.model import Timeline, timeline_of
from localconc.cli.output.timeline.page import timeline_page
from tests.kit.browser import CHROMIUM, Browser, browser
from tests.kit.hostile import HOSTILE, assert_harmless_on_a_terminal
from tests.kit.made_up_history import BEGIN, Job, acquired, limit, served, waiter

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def story() -> Timeline:
    """A nightly import holds up four web processes; a report is killed; one request waits to this day."""
    jobs = [Job(n * 1.3, 2.0, pid=10 + n % 4, label=f"web {n % 4}") for n in range(40)]
    jobs += [Job(10, 30, pid=50, label="nightly import"), Job(30, 8, pid=60, label="report", ending="killed")]
    mails = [acquired(Job(n * 5, 0, pid=70, thread="Task-1", ending="instant"), "mail") for n in range(12)]
    return timeline_of(
        [*served("db", 2, jobs), *mails],
        until=BEGIN + 80,
        limits=[limit("db", 2), limit("mail", 5, 1.0)],
        waiters=[waiter("db", since=70, label="late")],
    )


def crowd(bars: int = 10_000) -> Timeline:
    """Sixty workers whose bars are short, except for a long one now and then, for which the others wait."""
    jobs = [
        Job(
            n * 0.11,
            0.3 + n % 7 / 10 if n % 500 else 12,
            pid=n % 60,
            command=f"python worker.py --shard {n % 60}",
        )
        for n in range(bars)
    ]
    found = timeline_of(served("db", 6, jobs), until=BEGIN + bars * 0.11 + 60, limits=[limit("db", 6)])
    assert sum(bar.waited_seconds > 0.1 for bar in found.groups[0].bars) > bars / 4
    return found


# ---- as a text -------------------------------------------------------------------------------------------------------


class _Reader(HTMLParser):
    """Collects what a page would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader


def test_a_page_of_ten_thousand_bars_is_small_and_quickly_made():
    found = crowd()
    began = time.process_time()
    page = timeline_page(found)
    assert time.process_time() - began < 1.0
    assert len(page.encode()) < 3_000_000
    assert found.bars == 10_000


def test_a_page_of_ten_thousand_processes_with_long_commands_stays_small():
    jobs = [
        Job(n, 1.5, pid=n, label=f"{n} " + "ö" * 190, command=f"python job.py {n} " + "x" * 3_000)
        for n in range(10_000)
    ]
    found = timeline_of([acquired(job) for job in jobs], until=BEGIN + 10_010, limits=[limit("db", 2)])
    began = time.process_time()
    page = timeline_page(found)
    assert time.process_time() - began < 1.0
    assert len(page.encode()) < 3_000_000


def test_a_page_names_nothing_to_fetch():
    page = timeline_page(story())
    assert read(page).addresses == ["data:,"]
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_a_page_says_who_held_others_up():
    page = timeline_page(story())
    assert re.search(r"<h1><bdi>nightly import</bdi> held others up most: requests waited \S+ because of it", page)


def hostile_page() -> str:
    jobs = [
        Job(0, 10, pid=1, label=HOSTILE, command=HOSTILE, thread=HOSTILE),
        Job(1, 10, pid=2, label=HOSTILE + "2", command=HOSTILE, thread=HOSTILE),
    ]
    return timeline_page(timeline_of(served(HOSTILE, 1, jobs), until=BEGIN + 80, limits=[limit(HOSTILE, 1)]))


def test_names_add_no_element_and_no_handler():
    calm, hostile = read(timeline_page(story())), read(hostile_page())
    assert hostile.tags.count("script") == 2
    assert set(hostile.tags) <= set(calm.tags)
    assert "img" not in hostile.tags
    assert hostile.handlers == []


def test_names_bring_no_control_or_bidirectional_characters_into_a_page():
    page = hostile_page()
    page.encode()
    assert_harmless_on_a_terminal(page)
    text = page.partition('id="data">')[2].partition("</script>")[0]
    assert not set("<>&") & set(text)
    data = json.loads(text)
    assert_harmless_on_a_terminal(json.dumps(data, ensure_ascii=False))


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(tab: Browser, tmp_path: Path) -> Browser:
    """The story in a fresh tab, with the keyboard on its chart."""
    show(tab, tmp_path, timeline_page(story()))
    return tab


def show(tab: Browser, directory: Path, page: str) -> None:
    file = directory / "timeline.html"
    file.write_text(page, encoding="utf-8")
    tab.requested.clear()
    tab.complaints.clear()
    tab.colour_scheme("light")
    tab.open(file)
    tab.run("document.getElementById('chart').focus()")
    tab.settle()


def told(tab: Browser, key: str) -> float:
    return float(tab.run(f"document.getElementById('chart').dataset.{key}"))


def view(tab: Browser) -> tuple[float, float]:
    return told(tab, "from"), told(tab, "to")


def tip(tab: Browser) -> str:
    return str(tab.run("document.getElementById('tip').hidden ? '' : document.getElementById('tip').innerText"))


def colours(tab: Browser) -> set[str]:
    """The colours on the canvas that stand for something."""
    script = """(() => {
        const canvas = document.getElementById('lanes');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const seen = new Set();
        for (let i = 0; i < data.length; i += 4) seen.add((data[i] << 16) + (data[i + 1] << 8) + data[i + 2]);
        const style = getComputedStyle(document.documentElement);
        const names = ['surface', 'waiting', 'waiting-edge', 'holding', 'notable', 'killed', 'limit'];
        const number = (name) => parseInt(style.getPropertyValue(`--${name}`).trim().slice(1), 16);
        return names.filter((name) => seen.has(number(name)));
    })()"""
    return set(tab.run(script))


@in_a_browser
def test_all_bars_are_there_and_drawn(page: Browser):
    assert told(page, "bars") == story().bars == 55
    page.size(1400, 1400)
    page.until("chart.dataset.drawn === '55'")
    assert colours(page) == {"surface", "waiting", "waiting-edge", "holding", "notable", "killed", "limit"}
    assert page.complaints == []


@in_a_browser
def test_nothing_is_requested_but_the_page_itself(page: Browser, tmp_path: Path):
    for key in ("+", "w", "t", "0"):
        page.press(key)
    assert page.requested == [(tmp_path / "timeline.html").as_uri()]


@in_a_browser
def test_the_keyboard_zooms_pans_and_goes_back(page: Browser):
    whole = view(page)
    page.press("+")
    zoomed = view(page)
    assert zoomed[0] > whole[0]
    assert zoomed[1] < whole[1]
    page.press("ArrowRight")
    panned = view(page)
    assert panned[0] > zoomed[0]
    assert panned[1] - panned[0] == pytest.approx(zoomed[1] - zoomed[0], rel=1e-3)
    page.press("ArrowLeft")
    assert view(page) == pytest.approx(zoomed, rel=1e-3)
    page.press("-")
    page.press("0")
    assert view(page) == whole


@in_a_browser
def test_the_wheel_zooms_at_the_pointer(page: Browser):
    frame = page.run("(({ left, right, top }) => ({ left, right, top }))(lanes.getBoundingClientRect())")
    begin, end = view(page)
    page.mouse("mouseWheel", frame["right"] - 5, frame["top"] + 200, deltaX=0, deltaY=-400, modifiers=2)
    page.until(f"Number(chart.dataset.from) > {begin}")
    zoomed = view(page)
    assert zoomed[1] == pytest.approx(end, rel=0.01)
    assert zoomed[1] - zoomed[0] < 0.6 * (end - begin)


@in_a_browser
def test_dragging_pans(page: Browser):
    page.press("+")
    begin, end = view(page)
    frame = page.run("(({ left, right, top }) => ({ left, right, top }))(lanes.getBoundingClientRect())")
    y = frame["top"] + 15
    page.mouse("mousePressed", frame["right"] - 300, y, button="left", clickCount=1)
    page.mouse("mouseMoved", frame["right"] - 200, y, button="left", buttons=1)
    page.mouse("mouseReleased", frame["right"] - 200, y, button="left", clickCount=1)
    page.settle()
    assert view(page)[0] < begin
    assert view(page)[1] < end


@in_a_browser
def test_the_longest_wait_tells_what_it_waited_behind(page: Browser):
    page.press("w")
    words = tip(page)
    assert re.search(r"waited \d\S+ behind ", words)
    assert "nightly import (50)" in words
    page.press("Escape")
    assert tip(page) == ""


@in_a_browser
def test_the_worst_holder_is_a_click_away_and_tells_whom_it_held_up(page: Browser):
    page.run("document.querySelector('[data-holdup=\"0\"]').click()")
    page.settle()
    words = tip(page)
    assert words.startswith("nightly import")
    assert re.search(r"caused \S+ of waiting: held up .*web \d \(1\d\)", words)


@in_a_browser
def test_pointing_at_a_bar_tells_about_it(page: Browser):
    x = page.run("(() => { const f = lanes.getBoundingClientRect(); return f.left + f.width * 0.3; })()")
    top = page.run("lanes.getBoundingClientRect().top")
    for y in range(int(top) + 80, int(top) + 300, 6):
        for offset in range(0, 900, 45):
            page.mouse("mouseMoved", x + offset, y)
            page.settle()
            if words := tip(page):
                assert re.search(r"held 1 slot for|asks for 1 slot", words)
                assert re.search(r"pid \d+ · MainThread · python", words)
                return
    pytest.fail("no bar was found under the pointer")


@in_a_browser
def test_bars_are_gone_through_with_the_keyboard(page: Browser):
    page.press(".")
    first = tip(page)
    page.press(".")
    second = tip(page)
    page.press(",")
    assert first
    assert second not in ("", first)
    assert tip(page) == first
    page.press("ArrowDown")
    assert tip(page) not in ("", first)


@in_a_browser
def test_a_dark_scheme_is_followed_and_can_be_left(page: Browser):
    surface = "getComputedStyle(document.querySelector('.scroller')).backgroundColor"
    light = page.run(surface)
    page.colour_scheme("dark")
    page.until(f"{surface} !== '{light}'")
    page.settle()
    assert {"surface", "waiting", "holding", "notable", "killed"} <= colours(page)
    page.press("t")
    assert page.run(surface) == light
    assert {"surface", "waiting", "holding", "notable", "killed"} <= colours(page)


@in_a_browser
def test_words_have_enough_contrast_in_both_schemes(page: Browser):
    contrast = """((one, other) => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
            const number = parseInt(style.getPropertyValue(`--${name}`).trim().slice(1), 16);
            const parts = [number >> 16, (number >> 8) & 255, number & 255].map((part) => part / 255)
                .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] + 0.05;
        };
        return Math.max(light(one) / light(other), light(other) / light(one));
    })"""
    pairs = [
        ("text", "surface"), ("text", "panel"), ("muted", "surface"), ("muted", "panel"), ("muted", "faint"),
        ("waiting-text", "waiting"), ("holding-text", "holding"), ("notable-text", "notable"), ("limit", "surface"),
        ("notable", "surface"),
    ]  # fmt: skip
    for scheme in ("light", "dark"):
        page.colour_scheme(scheme)
        page.settle()
        for one, other in pairs:
            assert page.run(f"{contrast}('{one}', '{other}')") >= 4.5, (scheme, one, other)


@in_a_browser
def test_ten_thousand_bars_stay_smooth(tab: Browser, tmp_path: Path):
    show(tab, tmp_path, timeline_page(crowd()))
    assert told(tab, "bars") == 10_000
    tab.press("+")
    drawn = []
    for key in ("+", "ArrowRight", "+", "ArrowLeft", "-", "-", "ArrowRight"):
        tab.press(key)
        drawn.append(told(tab, "milliseconds"))
    # A frame lasts 16 ms. The bound leaves room for a machine that is busy with other things.
    assert sorted(drawn)[len(drawn) // 2] < 50, drawn


@in_a_browser
def test_names_run_nothing_in_a_browser(tab: Browser, tmp_path: Path):
    show(tab, tmp_path, hostile_page())
    tab.press("w")
    assert "window.attacked" in tip(tab)
    assert tab.run("typeof window.attacked") == "undefined"
    assert tab.run("document.images.length") == 0
    assert tab.complaints == []


@in_a_browser
def test_a_page_says_where_now_is_only_if_it_lasts_until_now(page: Browser, tmp_path: Path):
    colour = "getComputedStyle(document.documentElement).getPropertyValue('--muted').trim().slice(1)"
    dashes = f"""(() => {{
        const {{ data, width, height }} = lanes.getContext('2d').getImageData(0, 0, lanes.width, lanes.height);
        const muted = parseInt({colour}, 16);
        const is_muted = (x, y) => ((data[4 * (y * width + x)] << 16) + (data[4 * (y * width + x) + 1] << 8)
            + data[4 * (y * width + x) + 2]) === muted;
        return Array.from({{ length: width }}, (_, x) => x).some((x) => {{
            let found = 0;
            for (let y = 0; y < height; y += 6) found += is_muted(x, y) && is_muted(x, y + 2);
            return found > height / 12;
        }});
    }})()"""
    assert page.run(dashes)
    over = timeline_of(served("db", 1, [Job(0, 9), Job(1, 5)]), until=BEGIN + 9_000, limits=[limit()])
    show(page, tmp_path, timeline_page(over))
    assert not page.run(dashes)


@in_a_browser
def test_a_narrow_window_shows_the_bars_too(page: Browser):
    page.size(420, 800)
    page.until("lanes.clientWidth < 420")
    page.settle()
    assert told(page, "drawn") > 0
    assert page.run("document.documentElement.scrollWidth") <= 420
