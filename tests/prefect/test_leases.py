"""Leases: renewed while they are held, given up by forked children, logged once when lost, released in the end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="Prefect is not installed")

from localconc import ensure_limit, read_limit, update_limit
from localconc._prefect import close_keepers, open_keeper
from localconc._prefect.holding import leases
from localconc._prefect.server import connection
from localconc.errors import StoreError
from localconc.events import Event, subscribe
from localconc.sync import concurrency
from tests.kit.processes import wait_until
from tests.prefect.client import line, script
from tests.prefect.faults import Gate, Wire, cut, install, on
from tests.prefect.server import FILE_LEASES, PrefectServer, copy_of

RENEW = "/renew"
RELEASE = "/decrement-with-lease"


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, on_server: PrefectServer) -> Iterator[Wire]:
    """The way to the server, which can fail."""
    close_keepers()
    yield install(monkeypatch)
    close_keepers()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew leases of 60 s every 0.1 s."""
    monkeypatch.setattr(leases, "RENEW_SHARE", 0.1 / 60)
    monkeypatch.setattr(leases, "RENEW_AGAIN_SECONDS", 0.05)


def _renewals(wire: Wire) -> int:
    return sum(request.endswith(RENEW) for request in wire.seen)


@pytest.mark.usefixtures("often")
def test_a_lease_is_renewed_while_it_is_held_and_not_afterwards(wire: Wire, name: str) -> None:
    with concurrency(name, limit=1):
        wait_until(lambda: _renewals(wire) >= 3)
    renewals = _renewals(wire)
    time.sleep(0.3)
    assert _renewals(wire) <= renewals + 1


@pytest.mark.usefixtures("often")
def test_one_thread_renews_all_leases(wire: Wire, name: str) -> None:
    threads = threading.active_count()
    with concurrency(f"{name}-a", limit=1), concurrency(f"{name}-b", limit=1), concurrency(f"{name}-c", limit=1):
        wait_until(lambda: len({request for request in wire.seen if request.endswith(RENEW)}) == 3)
        assert threading.active_count() <= threads + 1


@pytest.mark.usefixtures("often")
def test_a_renewal_that_fails_is_repeated(wire: Wire, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with concurrency(name, limit=1):
        wire.before = on(RENEW, cut)
        wait_until(lambda: _renewals(wire) >= 2)
        wire.before = on(RENEW, lambda request: 503)
        renewals = _renewals(wire)
        wait_until(lambda: _renewals(wire) >= renewals + 2)
        wire.before = lambda request: None
        renewals = _renewals(wire)
        wait_until(lambda: _renewals(wire) >= renewals + 2)
    assert "Lost" not in caplog.text
    assert read_limit(name).active_slots == 0


@pytest.mark.usefixtures("often")
def test_a_lost_lease_is_logged_once_and_the_body_goes_on(
    wire: Wire, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "localconc"), concurrency(name, limit=1):
        wire.before = on(RENEW, lambda request: 410)
        wait_until(lambda: "Lost" in caplog.text)
        renewals = _renewals(wire)
        time.sleep(0.3)
        assert _renewals(wire) == renewals
    (record,) = caplog.records
    assert f"Lost 1 slot(s) of {name!r}" in record.getMessage()


@pytest.mark.usefixtures("often")
def test_a_call_that_wants_to_be_told_of_a_lost_lease_is_told_at_its_end(
    wire: Wire, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_limit(name, 1)
    wire.before = on(RENEW, lambda request: 410)
    with pytest.raises(StoreError, match="lost"), concurrency(name, raise_on_lease_renewal_failure=True):
        wait_until(lambda: "Lost" in caplog.text)


@pytest.mark.usefixtures("often")
def test_a_lost_lease_does_not_hide_what_the_body_raises(
    wire: Wire, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_limit(name, 1)
    wire.before = on(RENEW, lambda request: 410)

    def fail() -> None:
        wait_until(lambda: "Lost" in caplog.text)
        raise KeyError

    with pytest.raises(KeyError), concurrency(name, raise_on_lease_renewal_failure=True):
        fail()


def test_leaving_a_block_never_raises(wire: Wire, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with concurrency(name, limit=1):
        wire.before = on(RELEASE, cut)
    assert "Could not release" in caplog.text
    wire.before = lambda request: None
    wait_until(lambda: read_limit(name).active_slots == 0)


def test_a_release_that_takes_long_goes_on_in_the_background(
    wire: Wire, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localconc._prefect.acquiring.acquisitions.RELEASE_SECONDS", 0.2)
    gate = Gate()
    with concurrency(name, limit=1):
        wire.before = on(RELEASE, gate)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    gate.open()
    wait_until(lambda: read_limit(name).active_slots == 0)


def test_slots_released_at_limit_0_are_free_after_it_is_raised(wire: Wire, name: str) -> None:
    with concurrency(name, limit=1):
        update_limit(name, limit=0)
    assert read_limit(name).active_slots == 1
    update_limit(name, limit=1)
    wait_until(lambda: read_limit(name).active_slots == 0)


def test_a_lease_lasts_as_long_as_the_call_says(wire: Wire, name: str) -> None:
    lasts: list[bytes] = []
    wire.before = on("/increment-with-lease", lambda request: lasts.append(request.content))
    ensure_limit(name, 1)
    with concurrency(name, lease_duration=300):
        pass
    with concurrency(name):
        pass
    assert [b'"lease_duration":300.0' in lasts[0], b'"lease_duration":60.0' in lasts[1]] == [True, True]


def test_subscribers_are_told_when_a_dropped_block_is_released(on_server: PrefectServer, name: str) -> None:
    events: list[Event] = []
    unsubscribe = subscribe(events.append)
    block = concurrency(name, limit=1)
    block.__enter__()
    del block
    wait_until(lambda: len(events) == 2)
    unsubscribe()
    assert events[1].follows == events[0].id


# ---- forks -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks only where there are some")
def test_a_forked_child_gives_the_leases_up_and_has_its_own(on_server: PrefectServer, name: str) -> None:
    ensure_limit(name, 2)
    with concurrency(name):
        block = concurrency(name)
        block.__enter__()
        parent = open_keeper()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                del block  # a child that drops its parent's block
                keeper = open_keeper()
                assert keeper is not parent
                assert len(keeper.leases) == 0
                assert len(parent.leases) == 0
                assert read_limit(name).active_slots == 2
                with concurrency(f"{name}-child", limit=1):
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert read_limit(name).active_slots == 2
        block.__exit__(None, None, None)
        assert read_limit(name).active_slots == 1
    assert read_limit(name).active_slots == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks only where there are some")
def test_a_child_forked_while_a_question_is_under_way_has_a_connection_of_its_own(wire: Wire, name: str) -> None:
    ensure_limit(name, 2)
    gate = Gate()
    wire.after = on("/increment-with-lease", gate)
    thread = threading.Thread(target=lambda: concurrency(name).__enter__())
    thread.start()
    assert gate.reached.wait(10)
    child = os.fork()
    if child == 0:
        connection.make_transport = None
        status = 1
        try:
            with concurrency(name, timeout_seconds=5):
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    gate.open()
    thread.join()
    wait_until(lambda: read_limit(name).active_slots == 0)


FORKS_IN_C = """
import ctypes, os, sys
from localconc import read_limit
from localconc.sync import acquire, concurrency
name = sys.argv[1]
held = acquire(name, limit=2)
child = ctypes.PyDLL(None).fork()  # as a program in C does it: Python's own hooks don't run
if child == 0:
    status = 1
    try:
        with concurrency(name, timeout_seconds=30):
            status = 0 if read_limit(name).active_slots == 2 else 2
        del held
    finally:
        os._exit(status)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), read_limit(name).active_slots, flush=True)
held.release()
print(read_limit(name).active_slots, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks only where there are some")
def test_a_fork_that_python_does_not_see_gives_the_leases_up_too(
    on_server: PrefectServer, name: str, tmp_path: Path
) -> None:
    with script(FORKS_IN_C, name, url=on_server.url, home=tmp_path) as process:
        assert [line(process), line(process)] == ["0 1", "0"]


# ---- the end of a process --------------------------------------------------------------------------------------------

HOLDER = """
import sys
from localconc.sync import concurrency
block = concurrency(sys.argv[1], limit=1)
block.__enter__()
print("inside", flush=True)
sys.stdin.readline()
"""

POOL = """
import multiprocessing, sys
from localconc.sync import concurrency

def work(name):
    global block
    block = concurrency(name, limit=1)
    block.__enter__()

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=(sys.argv[1],))
    process.start()
    process.join()
    print("ended", process.exitcode, flush=True)
"""


def test_everything_is_released_when_the_process_ends(on_server: PrefectServer, name: str, tmp_path: Path) -> None:
    with script(HOLDER, name, url=on_server.url, home=tmp_path) as process:
        assert line(process) == "inside"
        assert read_limit(name).active_slots == 1
        process.communicate("end\n", timeout=20)
        assert process.returncode == 0
    assert read_limit(name).active_slots == 0


def test_everything_is_released_when_a_process_of_a_pool_ends(
    on_server: PrefectServer, name: str, tmp_path: Path
) -> None:
    program = tmp_path / "pool.py"
    program.write_text(POOL)
    run = f"import subprocess, sys; subprocess.run([sys.executable, {str(program)!r}, *sys.argv[1:]])"
    for method in ("fork", "spawn"):
        limit = f"{name}-{method}"
        with script(run, limit, method, url=on_server.url, home=tmp_path) as process:
            assert line(process) == "ended 0"
        assert read_limit(limit).active_slots == 0


def test_the_end_of_a_process_does_not_wait_long_for_a_server_that_is_gone(
    own_server: PrefectServer, name: str, tmp_path: Path
) -> None:
    with script(HOLDER, name, url=own_server.url, home=tmp_path) as process:
        assert line(process) == "inside"
        own_server.suspend()
        begun = time.monotonic()
        process.communicate("end\n", timeout=20)
        assert time.monotonic() - begun < 10
        own_server.resume()


# ---- sweeps: what takes long ----------------------------------------------------------------------------------------


@pytest.mark.sweep
@pytest.mark.timeout(180)
def test_a_killed_holder_gives_its_slots_back_when_its_lease_ends(
    on_server: PrefectServer, name: str, tmp_path: Path
) -> None:
    with script(HOLDER, name, url=on_server.url, home=tmp_path) as process:
        assert line(process) == "inside"
        process.send_signal(signal.SIGKILL)
        begun = time.monotonic()
        with concurrency(name, timeout_seconds=120):
            assert 30 < time.monotonic() - begun < 95


@pytest.mark.sweep
@pytest.mark.timeout(180)
def test_a_living_holder_keeps_its_slots_beyond_the_first_lease(on_server: PrefectServer, name: str) -> None:
    with concurrency(name, limit=1):
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with pytest.raises(TimeoutError), concurrency(name, timeout_seconds=0):
                pass
            time.sleep(5)
    assert read_limit(name).active_slots == 0


@pytest.mark.sweep
@pytest.mark.timeout(240)
@pytest.mark.parametrize("storage", ["memory", "files"])
def test_a_holder_survives_a_restart_of_the_server(
    storage: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.prefect.client import use_server

    server = PrefectServer(copy_of(prepared, tmp_path / "server"), **(FILE_LEASES if storage == "files" else {}))
    server.start()
    use_server(monkeypatch, server.url)
    try:
        with concurrency("held", limit=1):
            server.stop()
            server.start()
            time.sleep(45)  # two renewals, one at least after the restart
            assert ("Lost" in caplog.text) == (storage == "memory")
            assert read_limit("held").active_slots == 1
        assert read_limit("held").active_slots == (1 if storage == "memory" else 0)
    finally:
        close_keepers()
        server.stop()


@pytest.mark.sweep
def test_the_script_starts_a_server_and_stops_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.prefect.server"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("export PREFECT_API_URL=http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
