"""Four processes call a web server under one rate limit; the server's own log proves the rate.

python examples/polite_client.py
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Barrier

from localconc import ensure_limit
from localconc.sync import rate_limit

PROCESSES = 4
CALLS_EACH = 30
BURST = 10
RATE_PER_SECOND = 40.0


class LoggingServer(ThreadingHTTPServer):
    """A server on this machine that notes when each request came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.arrivals: list[float] = []


class Answer(BaseHTTPRequestHandler):
    """Answers every request in the same way, at once."""

    server: LoggingServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.arrivals.append(time.monotonic())
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the arrivals are the log."""


def call(port: int, all_connected: Barrier) -> None:
    """Call the server politely, over a connection that is kept: what it logs then is when each call was admitted."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.connect()
    all_connected.wait(60)
    for _ in range(CALLS_EACH):
        rate_limit("web")
        connection.request("GET", "/")
        connection.getresponse().read()
    connection.close()


def most_in(arrivals: list[float], seconds: float) -> int:
    """How many requests came within any window of so many seconds, at most."""
    most = first = 0
    for last, arrival in enumerate(arrivals):
        while arrivals[first] < arrival - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def main() -> None:
    server = LoggingServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="localconc-") as home:
        os.environ.setdefault("LOCALCONC_HOME", home)
        ensure_limit("web", BURST, slot_decay_per_second=RATE_PER_SECOND)
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

    arrivals = sorted(server.arrivals)
    after_burst = arrivals[BURST:]
    rate = (len(after_burst) - 1) / (after_burst[-1] - after_burst[0])
    print("by the server's own log:")
    print(f"  requests                 : {len(arrivals)}")
    print(f"  a second, after the burst: {rate:.1f}")
    for seconds in (0.1, 0.5, 1.0):
        allowed = BURST + RATE_PER_SECOND * seconds
        print(f"  within any {seconds:.1f} s, at most: {most_in(arrivals, seconds):3d} ({allowed:g} allowed)")


if __name__ == "__main__":
    main()
