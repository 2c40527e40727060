"""A crawler in two processes, polite as a whole: at most 3 requests at a time, and 10 a second after a burst of 5.

Run it: `python examples/async_crawler.py`. It starts a web server of its own on this machine, crawls it from two
processes with ten tasks each, and prints what the server saw. Neither process knows of the other; they share the limits
because they use the same names.
"""

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from localconc.asyncio import concurrency, rate_limit

PAGES_EACH = 15
PAGE_SECONDS = 0.25
AT_A_TIME = 3
BURST, PER_SECOND = 5, 10.0


async def fetch(url: str) -> str:
    """Get a page, as soon as both limits allow it."""
    await rate_limit("crawler requests", limit=BURST, slot_decay_per_second=PER_SECOND)
    async with concurrency("crawler connections", limit=AT_A_TIME):
        return await get(url)


async def crawl(site: str, crawler: str) -> None:
    """Get all pages of one crawler with ten tasks."""
    pages = [f"{site}/{crawler}/{number}" for number in range(PAGES_EACH)]

    async def work() -> None:
        while pages:
            await fetch(pages.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(work())


async def get(url: str) -> str:
    """Make a plain HTTP request, so that the example needs no library."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(f"GET {address.path} HTTP/1.0\r\nHost: {address.netloc}\r\n\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if b" 200 " not in head.splitlines()[0]:
            raise OSError(f"{url}: {head!r}")
        return body.decode()
    finally:
        writer.close()


# ---- the server ------------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """A slow web server that keeps a log.

    Attributes:
        arrivals: when each request came, and from which crawler.
        most_at_a_time: how many were being served at the same time, at most.
    """

    arrivals: list[tuple[float, str]] = field(default_factory=list)
    most_at_a_time: int = 0
    _serving: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        crawler = request.split()[1].decode().split("/")[1]
        self.arrivals.append((time.monotonic(), crawler))
        self._serving += 1
        self.most_at_a_time = max(self.most_at_a_time, self._serving)
        await asyncio.sleep(PAGE_SECONDS)
        self._serving -= 1
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nHello!\n")
        await writer.drain()
        writer.close()

    def report(self) -> str:
        began = self.arrivals[0][0]
        lines = []
        for second in range(int(self.arrivals[-1][0] - began) + 1):
            crawlers = [crawler for at, crawler in self.arrivals if second <= at - began < second + 1]
            shares = ", ".join(f"{crawlers.count(name)} from {name}" for name in sorted(set(crawlers)))
            lines.append(f"second {second + 1}: {len(crawlers):3} requests ({shares})")
        lines.append(f"{len(self.arrivals)} requests, at most {self.most_at_a_time} at the same time")
        return "\n".join(lines)


async def main() -> None:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    crawlers = [
        await asyncio.create_subprocess_exec(sys.executable, __file__, url, name) for name in ("first", "second")
    ]
    for crawler in crawlers:
        if await crawler.wait():
            raise SystemExit(f"a crawler failed with status {crawler.returncode}")
    server.close()
    print(site.report())


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(crawl(*sys.argv[1:]))
    else:
        with tempfile.TemporaryDirectory() as home:  # only so that the example leaves nothing behind
            os.environ["LOCALCONC_HOME"] = home
            asyncio.run(main())
