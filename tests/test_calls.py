"""A call as it is checked, and a request as its row keeps it, so that any process can admit it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, STRICT, Call, Request, checked_call
from localconc.errors import StoreError

names = st.text(st.characters(exclude_characters="/%&><\0", exclude_categories=["Cs"]), min_size=1)
requests = st.builds(
    Request,
    names=st.lists(names, min_size=1, max_size=4, unique=True).map(tuple),
    slots=st.integers(1, 2**31 - 1),
    mode=st.sampled_from([CONCURRENCY, RATE_LIMIT]),
    create_if_missing=st.booleans(),
    limit=st.none() | st.integers(0, 2**31 - 1),
    slot_decay_per_second=st.none() | st.floats(0, allow_infinity=False),
    strict=st.booleans(),
    label=st.text(st.characters(exclude_categories=["Cs"])),
)


@given(requests)
def test_a_request_is_the_same_after_it_was_kept(request: Request) -> None:
    assert Request.from_text(request.to_text()) == request


@pytest.mark.parametrize(
    "text",
    [
        "",
        "concurrency",
        "concurrency/x/1/None/None/0/db",
        "concurrency/1/1/x/None/0/db",
        "concurrency/1/1/None/x/0/db",
        "__import__/1/1/None/None/0/db",
        None,
        7,
        b"concurrency/1/1/None/None/0/db",
    ],
)
def test_what_localconc_did_not_write_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="malformed"):
        Request.from_text(text)


def call(names: Any = "db", **changes: Any) -> Call:
    given: dict[str, Any] = {
        "mode": CONCURRENCY,
        "names": names,
        "occupy": 1,
        "timeout_seconds": None,
        "create_if_missing": True,
        "max_retries": None,
        "limit": None,
        "slot_decay_per_second": None,
    }
    return checked_call(**(given | changes))


def test_the_same_call_is_checked_once() -> None:
    assert call("db", limit=3, timeout_seconds=2) is call("db", limit=3, timeout_seconds=2)


def test_calls_that_differ_in_any_argument_are_different() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"mode": RATE_LIMIT},
        {"occupy": 2},
        {"timeout_seconds": 1},
        {"timeout_seconds": 1.5},
        {"create_if_missing": False},
        {"max_retries": 1},
        {"limit": 1},
        {"slot_decay_per_second": 1.0},
        {"strict": True},
        {"label": "nightly"},
        {"lease_duration": 60},
        {"raise_on_lease_renewal_failure": True},
    ]
    assert len({call("db", **variant) for variant in variants}) == len(variants)


def test_a_timeout_is_shown_as_it_was_given() -> None:
    assert repr(call(timeout_seconds=1).timeout_seconds) == "1"
    assert repr(call(timeout_seconds=1.0).timeout_seconds) == "1.0"


def test_an_equal_argument_of_another_type_is_checked_all_the_same() -> None:
    assert call(occupy=1)
    with pytest.raises(TypeError, match="occupy must be a whole number, not True"):
        call(occupy=True)


def test_names_that_can_be_read_only_once_are_not_remembered() -> None:
    names = iter(["a", "b"])
    assert call(names).request.names == ("a", "b")
    assert call(names).request.names == ()


@pytest.mark.parametrize(("value", "is_strict"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_the_environment_decides_whether_calls_are_strict(
    monkeypatch: pytest.MonkeyPatch, value: str | None, is_strict: bool
) -> None:
    kept = call("kept before")
    if value is None:
        monkeypatch.delenv(STRICT, raising=False)
    else:
        monkeypatch.setenv(STRICT, value)
    assert call().request.strict is is_strict
    assert kept.as_of_now().request.strict is is_strict


def test_what_a_call_says_about_strictness_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STRICT, "1")
    assert call(strict=False).as_of_now().request.strict is False


def test_an_environment_that_was_replaced_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {STRICT: "1"})
    assert call().request.strict is True


def test_what_prefect_says_about_leases_is_kept_for_a_server() -> None:
    holder = {"type": "flow_run"}
    lease = call(lease_duration=60, holder=holder).lease
    assert lease is not None
    assert lease.duration == 60
    assert lease.holder is holder
    assert call().lease is None


@pytest.mark.parametrize("value", [5, 0, 1, "yes", 1.5])
def test_a_fourth_positional_argument_of_newer_prefects_is_explained(value: Any) -> None:
    with pytest.raises(TypeError, match=r"create_if_missing.*max_retries"):
        call(create_if_missing=value)


def test_a_missing_limit_is_not_created_for_false_and_none() -> None:
    assert call(create_if_missing=None).request.create_if_missing is False
    assert call(create_if_missing=False).request.create_if_missing is False
