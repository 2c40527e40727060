"""Code written for Prefect, kept by localconc: with the real package, or not at all."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import types
from collections.abc import Iterator

import pytest

from localconc import (
    ConcurrencySlotAcquisitionError,
    DeadlockError,
    ensure_limit,
    read_holders,
    read_limit,
    read_limits,
)
from localconc.testing import disabled, hold, replace_prefect, temporary_home

pytest.importorskip("prefect", reason="Prefect is not installed: it comes with the extra `prefect`")

from prefect.concurrency.asyncio import concurrency as their_concurrency_async
from prefect.concurrency.asyncio import rate_limit as their_rate_limit_async
from prefect.concurrency.sync import concurrency as their_concurrency
from prefect.concurrency.sync import rate_limit as their_rate_limit


@pytest.fixture
def replaced() -> Iterator[None]:
    with temporary_home(), replace_prefect():
        yield


@their_concurrency("database")
def decorated_before() -> list[int]:
    return [holder.slots for holder in read_holders("database")]


def test_names_that_were_imported_before_are_ours_in_the_block_and_theirs_after_it() -> None:
    before = (their_concurrency, their_rate_limit, their_concurrency_async, their_rate_limit_async)
    with temporary_home(), replace_prefect():
        ensure_limit("database", 1)
        with their_concurrency("database"):
            assert [holder.name for holder in read_holders("database")] == ["database"]
        import prefect.concurrency.sync

        assert prefect.concurrency.sync.concurrency is their_concurrency
        assert their_concurrency is not before[0]
    assert (their_concurrency, their_rate_limit, their_concurrency_async, their_rate_limit_async) == before


def test_tasks_are_limited_too(replaced: None) -> None:
    ensure_limit("database", 2)
    ensure_limit("api", 5, slot_decay_per_second=0.001)

    async def main() -> None:
        async with their_concurrency_async("database", occupy=2):
            assert read_limit("database").active_slots == 2
        await their_rate_limit_async("api", occupy=3)

    asyncio.run(main())
    assert read_limit("database").active_slots == 0
    assert read_limit("api").active_slots == 3


def test_rates_are_limited(replaced: None) -> None:
    ensure_limit("api", 2, slot_decay_per_second=0.001)
    their_rate_limit(["api"], 2)
    assert read_limit("api").active_slots == 2
    with pytest.raises(TimeoutError):
        their_rate_limit("api", timeout_seconds=0)


def test_a_function_decorated_before_the_block_is_limited(replaced: None) -> None:
    ensure_limit("database", 1)
    assert decorated_before() == [1]


def test_names_that_no_module_has_are_ours_too() -> None:
    """Local ones, partials, attributes of classes."""
    from prefect.concurrency import asyncio as for_tasks
    from prefect.concurrency import sync

    class Client:
        limited = staticmethod(sync.concurrency)

    limit_rate = functools.partial(sync.rate_limit, "api")
    limit_rate_async, limited_async = for_tasks.rate_limit, for_tasks.concurrency

    async def main() -> None:
        await limit_rate_async("api")
        async with limited_async("database"):
            assert [holder.slots for holder in read_holders("database")] == [1]

    with temporary_home(), replace_prefect():
        ensure_limit("database", 1)
        ensure_limit("api", 5, slot_decay_per_second=0.001)
        with Client.limited("database"):
            assert [holder.slots for holder in read_holders("database")] == [1]
        limit_rate(3)
        asyncio.run(main())
        assert read_limit("api").active_slots == 4


def test_a_module_imported_in_the_block_has_the_real_names_afterwards() -> None:
    with temporary_home(), replace_prefect():
        late = types.ModuleType("imported_late")
        sys.modules["imported_late"] = late
        exec("from prefect.concurrency.sync import concurrency as limited", late.__dict__)
        assert late.limited is their_concurrency
    try:
        assert late.limited is their_concurrency
    finally:
        del sys.modules["imported_late"]


def test_prefects_own_engine_uses_ours_in_the_block() -> None:
    """Limits on the tags of a task, too: the engine has the names from Prefect's private modules."""
    import prefect.task_engine

    def limiters() -> list[object]:
        found = vars(prefect.task_engine)
        return [found[name] for name in ("_concurrency", "_aconcurrency") if name in found]

    before = limiters()
    if not before:
        pytest.skip("the task engine of this Prefect has no such names")
    with replace_prefect():
        assert not any(ours is theirs for ours, theirs in zip(limiters(), before, strict=True))
    assert limiters() == before


def test_as_in_prefect_a_missing_limit_is_not_enforced(replaced: None) -> None:
    with their_concurrency("missing"):
        pass
    assert all(not limit.active for limit in read_limits())
    with their_concurrency([]):
        pass


def test_errors_are_those_of_prefect(replaced: None) -> None:
    import prefect.concurrency.asyncio as theirs

    ensure_limit("database", 1)
    with hold("database"), pytest.raises(theirs.AcquireConcurrencySlotTimeoutError, match="timed out after 0"):
        their_concurrency("database", timeout_seconds=0).__enter__()
    with pytest.raises(theirs.ConcurrencySlotAcquisitionError):
        their_concurrency("database", occupy=2).__enter__()


def test_an_error_of_the_body_passes_unchanged_and_gives_the_slots_back(replaced: None) -> None:
    ensure_limit("database", 1)
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, their_concurrency("database"):
        raise error
    assert caught.value is error
    assert read_limit("database").active_slots == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("lease_duration", 120), ("holder", None), ("raise_on_lease_renewal_failure", True), ("max_retries", 1)],
)
def test_parameters_of_newer_prefects_are_understood(replaced: None, option: str, value: object) -> None:
    if option not in inspect.signature(their_concurrency).parameters:
        pytest.skip(f"this Prefect has no {option}")
    ensure_limit("database", 1)
    with their_concurrency("database", **{option: value}):
        assert read_limit("database").active_slots == 1


def test_the_environment_makes_calls_strict_that_do_not_say(replaced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCONC_STRICT", "1")
    with pytest.raises(ConcurrencySlotAcquisitionError, match="missing"):
        their_concurrency("missing").__enter__()
    if "strict" in inspect.signature(their_concurrency).parameters:
        with their_concurrency("missing", strict=False):
            pass


def test_a_deadlock_is_an_error_of_prefect_too(replaced: None) -> None:
    import prefect.concurrency.asyncio as theirs

    ensure_limit("database", 1)
    with their_concurrency("database"), pytest.raises(theirs.ConcurrencySlotAcquisitionError) as caught:
        their_concurrency("database").__enter__()
    assert isinstance(caught.value, DeadlockError)


def test_what_prefect_does_not_take_is_refused(replaced: None) -> None:
    with pytest.raises(TypeError):
        their_concurrency("database", colour="red").__enter__()


def test_blocks_nest_and_decorate() -> None:
    original = their_concurrency

    @temporary_home()
    @replace_prefect()
    def outer() -> None:
        first = their_concurrency
        with replace_prefect():
            ensure_limit("database", 1)
            with their_concurrency("database", timeout_seconds=1):
                assert read_limit("database").active_slots == 1
                with pytest.raises(TimeoutError), their_concurrency("database", 1, 0):
                    pass
        assert their_concurrency is first

    outer()
    assert their_concurrency is original


def test_limits_can_be_off_as_well() -> None:
    with temporary_home() as directory, replace_prefect(), disabled():
        with their_concurrency("database"):
            their_rate_limit("api")
        assert list(directory.iterdir()) == []


def test_names_that_have_moved_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import prefect.concurrency.sync

    monkeypatch.delattr(prefect.concurrency.sync, "rate_limit")
    with pytest.raises(ImportError, match=r"Prefect \d.* has no rate_limit in prefect\.concurrency\.sync"):
        replace_prefect().__enter__()


def test_a_face_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect.concurrency.asyncio", None)
    with pytest.raises(ImportError, match=r"has no concurrency, rate_limit in prefect\.concurrency\.asyncio"):
        replace_prefect().__enter__()
