"""A server that is not there, is none, refuses the credentials, or goes away: one clear error, in time."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="Prefect is not installed")

import httpx

import localconc.asyncio
from localconc import create_limit, ensure_limit, read_limit, read_limits
from localconc._prefect import close_keepers, open_keeper
from localconc._prefect.acquiring import admission
from localconc.errors import AcquireConcurrencySlotTimeoutError, StoreError
from localconc.sync import concurrency, rate_limit
from tests.kit.processes import wait_until
from tests.prefect.client import use_server
from tests.prefect.faults import Gate, Wire, cut, install, on
from tests.prefect.server import PrefectServer, copy_of

TAKE = "/increment-with-lease"


@pytest.fixture(autouse=True)
def _no_keeper_stays() -> Iterator[None]:
    yield
    close_keepers()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, on_server: PrefectServer) -> Iterator[Wire]:
    """The way to the server, which can fail."""
    close_keepers()
    yield install(monkeypatch)
    close_keepers()


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- no server -------------------------------------------------------------------------------------------------------


def test_without_an_address_no_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    use_server(monkeypatch, None)
    with pytest.raises(StoreError, match="PREFECT_API_URL"), concurrency("x", limit=1):
        pass
    with pytest.raises(StoreError, match="PREFECT_API_URL"):
        read_limits()


@pytest.mark.parametrize("url", ["127.0.0.1:4200/api", "http://127.0.0.1:x/api", "ftp://127.0.0.1/api"])
def test_an_address_that_is_none_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_server(monkeypatch, url)
    with pytest.raises(StoreError, match="address of the Prefect server can't be used"), concurrency("x", limit=1):
        pass


def test_an_address_in_the_variable_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCONC_HOME", "prefect:http://127.0.0.1:4200/api")
    with pytest.raises(StoreError, match="takes nothing behind the colon"):
        read_limits()


def test_a_server_that_is_down_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{_unused_port()}/api"
    use_server(monkeypatch, url)
    for use in (lambda: concurrency("x", limit=1).__enter__(), lambda: rate_limit("x"), read_limits):
        begun = time.monotonic()
        with pytest.raises(StoreError, match=f"{url} can't be reached"):
            use()
        assert time.monotonic() - begun < 3


def test_a_task_gets_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use_server(monkeypatch, f"http://127.0.0.1:{_unused_port()}/api")

    async def main() -> None:
        async with localconc.asyncio.concurrency("x", limit=1):
            pass

    with pytest.raises(StoreError, match="can't be reached"):
        asyncio.run(main())


def test_a_server_that_never_answers_is_an_error_within_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_server(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        begun = time.monotonic()
        with pytest.raises(StoreError, match="no answer within"), concurrency("x", timeout_seconds=0.5):
            pass
        assert 0.5 <= time.monotonic() - begun < 3


class _Page(BaseHTTPRequestHandler):
    """Answers everything as a server for web pages does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>not Prefect</html>")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def test_a_server_that_is_not_prefect_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        try:
            use_server(monkeypatch, f"http://127.0.0.1:{pages.server_port}/api")
            with pytest.raises(StoreError, match="No Prefect server answers at"), concurrency("x", limit=1):
                pass
        finally:
            close_keepers()
            pages.shutdown()
            thread.join()


def test_an_address_without_its_path_is_named(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use_server(monkeypatch, server.url.removesuffix("/api"))
    with pytest.raises(StoreError, match=r"No Prefect server answers .* usually ends in /api"):
        read_limits()


# ---- a server that refuses -------------------------------------------------------------------------------------------


def test_wrong_credentials_are_named_and_not_shown(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = PrefectServer(copy_of(prepared, tmp_path / "server"), PREFECT_SERVER_API_AUTH_STRING="admin:right")
    guarded.start()
    try:
        use_server(monkeypatch, guarded.url, PREFECT_API_AUTH_STRING="admin:wrong")
        with pytest.raises(StoreError, match=r"refuses the credentials \(status 401\)") as raised:
            create_limit("x", 1)
        assert "wrong" not in str(raised.value)
        use_server(monkeypatch, guarded.url, PREFECT_API_AUTH_STRING="admin:right")
        assert create_limit("x", 1).limit == 1
    finally:
        close_keepers()
        guarded.stop()


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_leases_is_too_old(wire: Wire, name: str, status: int) -> None:
    ensure_limit(name, 1)
    wire.before = on(TAKE, lambda request: status)
    with pytest.raises(StoreError, match=r"too old \(version \d.*\).* Upgrade it"), concurrency(name):
        pass


def test_credentials_in_the_address_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    use_server(monkeypatch, f"http://me:secret@127.0.0.1:{_unused_port()}/api")
    with pytest.raises(StoreError) as raised:
        read_limits()
    assert "secret" not in str(raised.value)


# ---- a server that goes away -----------------------------------------------------------------------------------------


def test_one_failed_question_is_asked_again(wire: Wire, name: str) -> None:
    ensure_limit(name, 1)
    failures = [cut, lambda request: 503, lambda request: 500]
    wire.before = lambda request: failures.pop()(request) if failures else None
    with concurrency(name):
        assert failures == []


@pytest.mark.parametrize("fault", [httpx.ReadError("reset by peer"), httpx.RemoteProtocolError("disconnected")])
def test_a_connection_that_the_server_closed_at_that_moment_is_no_outage(
    wire: Wire, name: str, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_limit(name, 1)
    faults = [fault]
    wire.before = lambda request: faults.pop() if faults else None
    with concurrency(name, timeout_seconds=0):
        faults.append(fault)
    assert faults == []
    assert caplog.text == ""


def test_a_short_time_out_counts_for_a_server_that_is_slow_to_answer(wire: Wire, name: str) -> None:
    ensure_limit(name, 1)
    gate = Gate()
    wire.before = on(TAKE, gate)
    begun = time.monotonic()
    with pytest.raises(AcquireConcurrencySlotTimeoutError, match="has not answered"):
        concurrency(name, timeout_seconds=0.4).__enter__()
    assert 0.4 <= time.monotonic() - begun < 3
    gate.open()


def test_a_known_server_that_went_down_is_an_error_within_the_time_out(wire: Wire, name: str) -> None:
    ensure_limit(name, 1)
    wire.before = cut
    begun = time.monotonic()
    with pytest.raises(StoreError, match="can't be reached"), concurrency(name, timeout_seconds=0.5):
        pass
    assert time.monotonic() - begun < 1.9


def test_a_waiter_waits_for_a_server_that_restarts(own_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PAUSED_SECONDS", 0.2)  # so that it asks while no server is there
    ensure_limit("awaited", 0)
    inside = threading.Event()

    def wait() -> None:
        with concurrency("awaited"):
            inside.set()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: len(open_keeper().wakeups) == 1)
    own_server.stop()
    own_server.start()
    assert not inside.is_set()
    ensure_limit("awaited", 1)
    assert inside.wait(30)
    thread.join()


def test_a_waiter_whose_time_is_up_is_told_of_the_outage(wire: Wire, name: str) -> None:
    with concurrency(name, limit=1):
        errors: list[str] = []

        def wait() -> None:
            try:
                concurrency(name, timeout_seconds=3).__enter__()
            except AcquireConcurrencySlotTimeoutError as error:
                errors.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: sum(request.endswith(TAKE) for request in wire.seen) >= 2)
        wire.before = cut
        thread.join(15)
        wire.before = lambda request: None
    assert len(errors) == 1
    assert "can't be reached" in errors[0]


def test_no_call_waits_for_the_client_to_retry_by_itself(wire: Wire, name: str) -> None:
    ensure_limit(name, 1)
    wire.before = on(TAKE, lambda request: 503)
    begun = time.monotonic()
    with pytest.raises(StoreError, match="status 503"), concurrency(name, timeout_seconds=0.5):
        pass
    assert time.monotonic() - begun < 1.9
    wire.before = lambda request: None
    assert read_limit(name).active_slots == 0
