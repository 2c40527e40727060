"""Other clients change limits that this process knows: its calls follow the server all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("httpx", reason="Prefect is not installed")

import httpx

from localconc import ensure_limit, read_limit
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from localconc.sync import concurrency
from tests.prefect.server import PrefectServer


class Others:
    """Another client of the server."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/v2/concurrency_limits", trust_env=False)

    def update(self, name: str, /, **changes: object) -> None:
        self._client.patch(f"/{name}", json=changes).raise_for_status()

    def delete(self, name: str) -> None:
        self._client.delete(f"/{name}").raise_for_status()

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def others(on_server: PrefectServer) -> Iterator[Others]:
    client = Others(on_server.url)
    yield client
    client.close()


@pytest.fixture
def known(others: Others, name: str) -> str:
    """A limit of 2 that this process has used."""
    ensure_limit(name, 2)
    with concurrency(name):
        pass
    return name


def test_strict_sees_that_a_limit_was_disabled(others: Others, known: str) -> None:
    others.update(known, active=False)
    with pytest.raises(ConcurrencySlotAcquisitionError, match=known), concurrency(known, strict=True):
        pass


def test_a_limit_that_was_deleted_is_created_anew(others: Others, known: str) -> None:
    others.delete(known)
    with concurrency(known, limit=3):
        assert (read_limit(known).limit, read_limit(known).active_slots) == (3, 1)


def test_slots_of_the_other_names_come_back_if_one_was_deleted(others: Others, known: str, name: str) -> None:
    ensure_limit(f"{name}-other", 1)
    with concurrency([known, f"{name}-other"]):
        pass
    others.delete(known)
    with concurrency([known, f"{name}-other"]) as occupancy:
        assert [limit.name for limit in occupancy.limits] == [f"{name}-other"]
        assert read_limit(f"{name}-other").active_slots == 1
    assert read_limit(f"{name}-other").active_slots == 0


def test_a_limit_that_was_lowered_refuses_what_it_can_never_admit(others: Others, known: str) -> None:
    others.update(known, limit=1)
    with pytest.raises(ConcurrencySlotAcquisitionError, match="has only 1"), concurrency(known, occupy=2):
        pass


def test_a_limit_that_was_set_to_0_makes_calls_wait(others: Others, known: str) -> None:
    others.update(known, limit=0)
    with pytest.raises(AcquireConcurrencySlotTimeoutError, match="has limit 0"), concurrency(known, timeout_seconds=0):
        pass


def test_a_limit_that_was_disabled_admits_all_calls(others: Others, known: str) -> None:
    others.update(known, active=False)
    with concurrency(known, occupy=2, timeout_seconds=0), concurrency(known, occupy=2, timeout_seconds=0):
        pass


def test_a_limit_that_was_renamed_is_another_one(others: Others, known: str) -> None:
    others.update(known, name=f"{known}-renamed")
    with concurrency(known, limit=1, timeout_seconds=0):
        assert read_limit(f"{known}-renamed").active_slots == 0
