"""Durations as people write and read them."""

from __future__ import annotations

import pytest

from localconc.cli.durations import duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("45s", 45),
        ("10m", 600),
        ("1h30m", 5_400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("250ms", 0.25),
        (" 1H 30M ", 5_400),
        ("0s", 0),
    ],
)
def test_a_duration_is_read(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "10x", "-5m", "1h-30m", "m", "nan", "inf", "1e3", "10m!", "٣m", "999999w"]
)
def test_what_is_no_duration_is_refused_with_the_text(text: str):
    with pytest.raises(ValueError, match="must be") as refusal:
        parse_duration(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.000001, "0.1ms"),
        (0.0004, "0.4ms"),
        (0.00996, "10ms"),
        (0.038, "38ms"),
        (0.0999, "0.10s"),
        (0.42, "0.42s"),
        (9.999, "10.0s"),
        (12.34, "12.3s"),
        (59.96, "1m00s"),
        (192, "3m12s"),
        (3_599.7, "1h00m"),
        (7_500, "2h05m"),
        (367_200, "4d06h"),
    ],
)
def test_a_duration_is_written_in_few_figures(seconds: float, text: str):
    assert duration_text(seconds) == text
