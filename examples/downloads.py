"""A download manager acquires a slot in one callback and releases it in another, in another thread.

Run it: `python examples/downloads.py`. It starts a web server of its own on this machine, and prints how many
downloads the server saw at the same time.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from localconc import read_holders
from localconc.sync import Occupancy, acquire

DOWNLOADS = 12
AT_A_TIME = 3
DOWNLOAD_SECONDS = 0.1


class DownloadManager:
    """Keeps the number of downloads on this machine within a limit.

    No block could hold the slot: a download begins in one function and ends in another one.
    """

    def __init__(self) -> None:
        self._occupancies: dict[str, Occupancy] = {}

    def on_start(self, url: str) -> None:
        """Wait until one more download may begin."""
        self._occupancies[url] = acquire("downloads", limit=AT_A_TIME, label=url)

    def on_end(self, url: str) -> None:
        """Let the next download begin; any thread of the process may release."""
        self._occupancies.pop(url).release()


# ---- a downloader that knows nothing of limits, but calls back -------------------------------------------------------


def download_all(urls: list[str], on_start: Callable[[str], None], on_end: Callable[[str], None]) -> list[int]:
    """Download from several addresses at a time; return the sizes."""
    with ThreadPoolExecutor(len(urls)) as pool:
        downloads = []
        for url in urls:
            on_start(url)
            downloads.append(pool.submit(download, url, on_end))
        return [each.result() for each in downloads]


def download(url: str, on_end: Callable[[str], None]) -> int:
    """Download from one address; return the size."""
    try:
        with urlopen(url) as reply:
            return len(reply.read())
    finally:
        on_end(url)


# ---- the server ------------------------------------------------------------------------------------------------------


class CountingServer(ThreadingHTTPServer):
    """A slow server on this machine that counts how many downloads it serves at the same time."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.lock = threading.Lock()
        self.serving = self.most_at_a_time = 0

    def count(self, step: int) -> None:
        """Note that a download begins (1) or ends (-1)."""
        with self.lock:
            self.serving += step
            self.most_at_a_time = max(self.most_at_a_time, self.serving)


class Answer(BaseHTTPRequestHandler):
    """Answers every request slowly, with a few bytes."""

    server: CountingServer

    def do_GET(self) -> None:
        self.server.count(1)
        time.sleep(DOWNLOAD_SECONDS)
        self.server.count(-1)  # before the answer, after which the client may begin another download
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a few bytes\n")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the count is the log."""


def main() -> None:
    server = CountingServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="localconc-") as home:
        os.environ.setdefault("LOCALCONC_HOME", home)
        manager = DownloadManager()
        urls = [f"http://127.0.0.1:{server.server_port}/{number}" for number in range(DOWNLOADS)]
        sizes = download_all(urls, manager.on_start, manager.on_end)
        held = len(read_holders("downloads"))
    server.shutdown()
    server.server_close()

    print(f"{len(sizes)} downloads, {sum(sizes)} bytes")
    print(f"  at the same time, at most: {server.most_at_a_time} of {AT_A_TIME} allowed")
    print(f"  slots still held         : {held}")


if __name__ == "__main__":
    main()
