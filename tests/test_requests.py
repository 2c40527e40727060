"""What a waiting request is kept as, so that any process can answer it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, Request
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
    with pytest.raises(StoreError, match="can't be understood"):
        Request.from_text(text)
