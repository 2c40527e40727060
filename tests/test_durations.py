"""Durations as people read them."""

from __future__ import annotations

import pytest

from localconc.cli.output.text import duration_text


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
