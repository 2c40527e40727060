"""Tests of limited code: no waiting, no server, nothing left behind.

Run it as it stands: `pytest examples/test_limited_code.py`.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from localconc import AcquireConcurrencySlotTimeoutError, ensure_limit
from localconc.sync import concurrency, rate_limit
from localconc.testing import hold, peak

# ---- the code under test ---------------------------------------------------------------------------------------------


def fetch(pages: list[int]) -> list[str]:
    """Ask an API that allows a burst of 5 requests, and then one a second."""
    bodies = []
    for page in pages:
        rate_limit("api", limit=5, slot_decay_per_second=1)
        bodies.append(f"page {page}")
    return bodies


def query(number: int) -> int:
    """Ask a database that allows two connections, and give up after half a minute."""
    with concurrency("database", limit=2, timeout_seconds=30):
        return number * number


# ---- the tests -------------------------------------------------------------------------------------------------------


def test_a_hundred_pages_take_95_seconds(localconc_clock):
    assert len(fetch(list(range(100)))) == 100
    assert localconc_clock.elapsed == 95


def test_queries_share_two_connections(localconc_home):
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(query, range(10))) == 285
    assert peak("database") <= 2


def test_a_query_gives_up_when_the_database_is_busy(localconc_clock):
    with hold("database", 2, limit=2), pytest.raises(AcquireConcurrencySlotTimeoutError):
        query(1)
    assert localconc_clock.elapsed == 30


def test_a_crashed_process_gives_its_connection_back(localconc_home):
    ensure_limit("database", 1)
    with hold("database") as held:
        held.kill()
        assert query(3) == 9


@pytest.mark.concurrency("one at a time", limit=1)
@pytest.mark.parametrize("number", range(3))
def test_never_beside_another_one(number):
    """One test at a time has this marker, among all workers (`pytest -n 4`) and all runs on this machine."""
