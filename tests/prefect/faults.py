"""What lies between client and server, and fails when a test wants it to."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx
import pytest

from localconc._prefect.server import connection

#: Decides about a request: None lets it pass, a status is the answer in place of the server's, an error is raised.
Fault = Callable[[httpx.Request], int | Exception | None]


class Wire(httpx.BaseTransport):
    """The way to the real server, with a fault in it.

    Attributes:
        before: decides what becomes of a request instead of reaching the server.
        after: decides what becomes of an answer on its way back.
        seen: method and path of each request.
    """

    def __init__(self) -> None:
        self._real = httpx.HTTPTransport()
        self.before: Fault = lambda request: None
        self.after: Fault = lambda request: None
        self.seen: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path.removeprefix('/api')}")
        response = _decided(self.before(request), request)
        if response is not None:
            return response
        answer = self._real.handle_request(request)
        answer.read()
        return _decided(self.after(request), request) or answer

    def close(self) -> None:
        self._real.close()


def _decided(fault: int | Exception | None, request: httpx.Request) -> httpx.Response | None:
    if isinstance(fault, Exception):
        raise fault
    return None if fault is None else httpx.Response(fault, request=request, json={"detail": "Not Found"})


def install(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Let the next connection of this process go over a wire that can fail."""
    wire = Wire()
    monkeypatch.setattr(connection, "make_transport", lambda: wire)
    return wire


def cut(request: httpx.Request) -> Exception:
    """As if nothing listened there."""
    return httpx.ConnectError("connection refused", request=request)


def on(path: str, fault: Fault) -> Fault:
    """A fault of requests to one path only."""
    return lambda request: fault(request) if request.url.path.endswith(path) else None


class Gate:
    """Holds requests up until it is opened, and tells when one has come."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self, request: httpx.Request) -> None:
        self.reached.set()
        assert self._opened.wait(30)

    def open(self) -> None:
        self._opened.set()
