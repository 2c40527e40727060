"""Statistics in Prometheus's text format, read by the official parser."""

from __future__ import annotations

import pendulum
import pytest

from localconc._engine.core.history import Percentiles, Statistics
from localconc.cli.output.prometheus import prometheus_text
from tests.kit.hostile import HOSTILE, assert_harmless_on_a_terminal

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")

NINE = pendulum.datetime(2026, 3, 2, 9)


def statistics(name: str = "db", **changes) -> Statistics:
    fields = {
        "name": name,
        "since": NINE,
        "until": NINE.add(hours=1),
        "acquisitions": 127,
        "refusals": 3,
        "waited_seconds": Percentiles(0.25, 1.5, 4.0, 7.125),
        "held_seconds": Percentiles(2.0, 3.0, 22.0, 41.0),
        "utilization": 0.875,
    }
    return Statistics(**{**fields, **changes})


def samples(text: str) -> dict[tuple[str, ...], float]:
    """All samples by name and label values."""
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found, key
            found[key] = sample.value
    return found


def test_the_official_parser_reads_every_figure():
    assert samples(prometheus_text([statistics()])) == {
        ("localconc_window_seconds", "db"): 3600,
        ("localconc_window_acquisitions", "db"): 127,
        ("localconc_window_refusals", "db"): 3,
        ("localconc_utilization_ratio", "db"): 0.875,
        ("localconc_waited_seconds", "db", "0.5"): 0.25,
        ("localconc_waited_seconds", "db", "0.9"): 1.5,
        ("localconc_waited_seconds", "db", "0.99"): 4.0,
        ("localconc_waited_seconds", "db", "1"): 7.125,
        ("localconc_held_seconds", "db", "0.5"): 2.0,
        ("localconc_held_seconds", "db", "0.9"): 3.0,
        ("localconc_held_seconds", "db", "0.99"): 22.0,
        ("localconc_held_seconds", "db", "1"): 41.0,
    }


def test_each_figure_has_its_type_and_its_help_once():
    families = list(parser.text_string_to_metric_families(prometheus_text([statistics("a"), statistics("b")])))
    assert {family.name: family.type for family in families} == {
        "localconc_window_seconds": "gauge",
        "localconc_window_acquisitions": "gauge",
        "localconc_window_refusals": "gauge",
        "localconc_utilization_ratio": "gauge",
        "localconc_waited_seconds": "summary",
        "localconc_held_seconds": "summary",
    }
    assert all(family.documentation.endswith(".") for family in families)


def test_figures_without_a_case_are_left_out():
    nothing = statistics(acquisitions=0, waited_seconds=None, held_seconds=None, utilization=None)
    text = prometheus_text([nothing])
    assert set(samples(text)) == {
        (f"localconc_window_{kind}", "db") for kind in ("seconds", "acquisitions", "refusals")
    }
    assert "localconc_waited_seconds" not in text


def test_no_limits_make_an_empty_text():
    assert prometheus_text([]) == ""


@pytest.mark.parametrize("name", ['we"ird', "back\\slash", "line\nbreak", "größe", "a b", '\\"', "\\n"])
def test_the_parser_gives_printable_names_back_unchanged(name: str):
    assert ("localconc_window_seconds", name) in samples(prometheus_text([statistics(name)]))


def test_names_add_no_sample_and_nothing_that_acts_on_a_terminal():
    text = prometheus_text([statistics(HOSTILE)])
    text.encode()
    assert_harmless_on_a_terminal(text)
    assert len(samples(text)) == 12
    assert not any(key[0] == "attacked" for key in samples(text))


def test_names_that_look_alike_once_written_out_stay_apart():
    text = prometheus_text([statistics("a\x1b"), statistics("a\\x1b")])
    assert len(samples(text)) == 24
