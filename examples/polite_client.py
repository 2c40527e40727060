"""Four processes call a web server that sometimes answers 429 (too many requests), and all of them pause together.

Whoever gets such an answer pauses the limit for as long as the header Retry-After says. The server's own log proves
that nobody called during a pause.

python examples/polite_client.py
"""

from __future__ import annotations

import email.utils
import multiprocessing
import os
import tempfile
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Barrier
from typing import NamedTuple

from localconc import ensure_limit, pause_limit
from localconc.sync import concurrency, rate_limit

PROCESSES = 4
CALLS_EACH = 30
BURST = 10
RATE_PER_SECOND = 40.0

#: The server answers 429 to these requests, the first time with seconds, the second time with a date.
TOO_MANY_AT = (50, 90)
PAUSE_SECONDS = 1


# ---- the client ------------------------------------------------------------------------------------------------------


def call(port: int, all_connected: Barrier) -> None:
    """Call the server politely, over a connection that stays open."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.connect()
    all_connected.wait(60)
    for _ in range(CALLS_EACH):
        while not is_served(connection):
            pass  # the limit is paused by now, so the next attempt waits
    connection.close()


def is_served(connection: HTTPConnection) -> bool:
    """Make one request when the limits allow it; if the server refuses it, pause the limit for all processes."""
    with concurrency("web connection"):  # one request at a time, so none is on its way when a pause begins
        rate_limit("web")
        connection.request("GET", "/")
        reply = connection.getresponse()
        reply.read()
        if reply.status != 429:
            return True
        seconds = retry_after_seconds(reply.headers["Retry-After"])
        if seconds > 0:
            pause_limit("web", seconds)
        return False


def retry_after_seconds(text: str) -> float:
    """Return how many seconds a Retry-After header asks for: it has a number, or a date."""
    if text.isdecimal():
        return float(text)
    return email.utils.parsedate_to_datetime(text).timestamp() - time.time()


# ---- the server ------------------------------------------------------------------------------------------------------


class Pause(NamedTuple):
    """A time in which the server wants no requests."""

    header: str
    begun: float
    until: float


class LoggingServer(ThreadingHTTPServer):
    """A server on this machine that notes when each request came, and when it asked for a pause."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.arrivals: list[float] = []
        self.pauses: list[Pause] = []

    def pause(self, now: float) -> Pause:
        """Begin a pause."""
        if not self.pauses:
            pause = Pause(str(PAUSE_SECONDS), now, now + PAUSE_SECONDS)
        else:
            until = int(now) + PAUSE_SECONDS + 1  # dates of HTTP have whole seconds
            pause = Pause(email.utils.formatdate(until, usegmt=True), now, until)
        self.pauses.append(pause)
        return pause

    def arrivals_during(self, pause: Pause) -> int:
        """Count the requests that came although the server had asked for a pause."""
        return sum(pause.begun < arrival < pause.until for arrival in self.arrivals)


class Answer(BaseHTTPRequestHandler):
    """Answers at once: 200, or now and then 429."""

    server: LoggingServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        now = time.time()
        self.server.arrivals.append(now)
        if len(self.server.arrivals) in TOO_MANY_AT:
            self.send_response(429)
            self.send_header("Retry-After", self.server.pause(now).header)
        else:
            self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the arrivals are the log."""


def main() -> None:
    server = LoggingServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="localconc-") as home:
        os.environ.setdefault("LOCALCONC_HOME", home)
        ensure_limit("web", BURST, slot_decay_per_second=RATE_PER_SECOND)
        ensure_limit("web connection", 1)
        print(f"{PROCESSES} processes call 127.0.0.1:{server.server_port}, {CALLS_EACH} times each,")
        print(f"under rate_limit('web'): a burst of {BURST}, then {RATE_PER_SECOND:g} a second\n")
        context = multiprocessing.get_context("spawn")
        all_connected = context.Barrier(PROCESSES)
        clients = [context.Process(target=call, args=(server.server_port, all_connected)) for _ in range(PROCESSES)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    server.shutdown()
    server.server_close()

    steady = server.arrivals[BURST : TOO_MANY_AT[0]]
    rate = (len(steady) - 1) / (steady[-1] - steady[0])
    print("by the server's own log:")
    print(f"  requests                 : {len(server.arrivals)}, {len(server.pauses)} of them answered with 429")
    print(f"  a second, after the burst: {rate:.1f}")
    for pause in server.pauses:
        print(f"  Retry-After: {pause.header}")
        print(f"    requests in these {pause.until - pause.begun:.1f} s: {server.arrivals_during(pause)}")


if __name__ == "__main__":
    main()
