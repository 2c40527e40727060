"""Which arguments are accepted, and what the others are told."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from localconc._engine.core import arguments
from localconc.sync import concurrency


class Index:
    """A whole number of another kind, as numpy's are."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


def bool_(value: bool) -> Any:
    """A truth value of another kind, as numpy's is: it can be converted to a float."""
    return type("bool_", (), {"__float__": lambda self: float(value), "__bool__": lambda self: value})()


# ---- names and labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", arguments.FORBIDDEN_IN_NAMES)
def test_a_character_that_no_name_can_have_is_named(character: str) -> None:
    with pytest.raises(ValueError, match="A limit's name can't contain") as raised:
        arguments.limit_name("names", f"api{character}minute")
    assert str(raised.value) == f"names: A limit's name can't contain {character!r}: 'api{character}minute'"


def test_several_characters_that_no_name_can_have_are_all_named() -> None:
    with pytest.raises(ValueError, match="can't contain '%' or '/': 'a/b%'"):
        arguments.limit_name("names", "a/b%")


def test_a_name_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        arguments.limit_name("names", "caf\udce9")


def test_a_label_can_be_up_to_200_characters_long() -> None:
    assert arguments.label("x" * 200) == "x" * 200
    with pytest.raises(ValueError, match="at most 200 characters"):
        arguments.label("x" * 201)


def test_a_call_without_a_label_has_an_empty_one() -> None:
    assert arguments.label(None) == ""


def test_a_label_that_is_not_unicode_is_made_printable() -> None:
    assert arguments.label("caf\udce9") == "caf\N{REPLACEMENT CHARACTER}"


def test_a_label_keeps_what_follows_a_nul() -> None:
    assert arguments.label("a\0b") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_label_is_text() -> None:
    with pytest.raises(TypeError, match="label must be a string, not 7"):
        arguments.label(7)


@pytest.mark.parametrize("text", ["", "plain", "café", "日本", "\N{PILE OF POO}", "new\nline"])
def test_unicode_is_printable_as_it_is(text: str) -> None:
    assert arguments.printable(text) == text


@pytest.mark.parametrize("text", ["caf\udce9.jpg", "\ud83d", "日\udcff\udcfe"])
def test_what_is_printable_can_be_encoded(text: str) -> None:
    printable = arguments.printable(text)
    assert printable.encode().decode() == printable
    assert len(printable) == len(text)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_any_kind_of_integer_is_a_whole_number() -> None:
    number = arguments.whole("occupy", Index(3), 1)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize("value", [True, bool_(True), 1.0, "1", None, [1], Decimal(1)])
def test_what_is_no_integer_is_no_whole_number(value: Any) -> None:
    with pytest.raises(TypeError, match="occupy must be a whole number"):
        arguments.whole("occupy", value, 1)


@pytest.mark.parametrize("value", [0, -1, 2**31, Index(0)])
def test_a_whole_number_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="occupy must be from 1 to"):
        arguments.whole("occupy", value, 1)


@pytest.mark.parametrize("value", [2, 2.0, Index(2), Decimal(2), Fraction(4, 2), timedelta(seconds=2)])
def test_any_kind_of_number_and_a_timedelta_is_a_timeout(value: Any) -> None:
    seconds = arguments.timeout(value)
    assert seconds == 2
    assert type(seconds) in (int, float)


def test_an_infinite_timeout_is_none() -> None:
    assert arguments.timeout(math.inf) is None
    assert arguments.timeout(Decimal("inf")) is None


@pytest.mark.parametrize("value", [-1, math.nan, Decimal("nan"), timedelta(seconds=-1), 10**400])
def test_a_timeout_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        arguments.timeout(value)


@pytest.mark.parametrize("value", [True, bool_(True), "1", [1], 1j])
def test_what_is_no_number_is_no_timeout(value: Any) -> None:
    with pytest.raises(TypeError, match="timeout_seconds must be a number"):
        arguments.timeout(value)


@pytest.mark.parametrize("value", [0, 1e-9, 5, 1e9, Decimal("0.5"), Index(3)])
def test_a_decay_within_the_range_is_a_float(value: Any) -> None:
    decay = arguments.decay(value)
    assert type(decay) is float
    assert decay == float(arguments.timeout(value) or 0)


@pytest.mark.parametrize("value", [-1, 1e-10, 1e20, math.inf, math.nan, 10**400])
def test_a_decay_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="slot_decay_per_second"):
        arguments.decay(value)


@pytest.mark.parametrize("value", [True, False, 0, 1, bool_(True)])
def test_a_flag_is_a_truth_value(value: Any) -> None:
    assert arguments.flag("active", value) is bool(value)


def test_a_flag_is_no_text() -> None:
    with pytest.raises(TypeError, match="active must be True or False, not 'yes'"):
        arguments.flag("active", "yes")


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_a_lease_lasts_some_time(value: Any) -> None:
    with pytest.raises(ValueError, match="lease_duration"):
        arguments.lease_duration(value)


@pytest.mark.parametrize("huge", [10**5000, -(10**5000)], ids=["above 0", "below 0"])
@pytest.mark.parametrize(
    "argument",
    ["occupy", "limit", "timeout_seconds", "max_retries", "slot_decay_per_second", "lease_duration"],
)
def test_an_int_of_thousands_of_digits_is_refused_by_the_name_of_its_argument(argument: str, huge: int) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} .* a number with too many digits to show$"):
        concurrency("db", **{argument: huge})
