"""One script on two machines: each keeps the limit for itself, until one setting lets both use a Prefect server.

Two homes stand for two machines. First each counts its own slots, so twice as many workers run as the limit says; with
`LOCALCONC_HOME=prefect:` both share it. The workers' own log proves it.

pip install '.[prefect]' && python examples/two_machines.py
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

LIMIT = 2
WORKERS_EACH = 3
JOBS_EACH = 4
JOB_SECONDS = 0.1
START_SECONDS = 120.0


def work() -> None:
    """What each worker does on its machine. No line of it knows who keeps the limit."""
    from localconc.sync import concurrency

    for _ in range(JOBS_EACH):
        with concurrency("database", limit=LIMIT):
            begin = time.monotonic()
            time.sleep(JOB_SECONDS)
            print(begin, time.monotonic(), flush=True)


def most_at_once(homes: list[str]) -> int:
    """Run the workers of both machines at the same time; return how many jobs ran at once, by their own log."""
    command = [sys.executable, __file__, "work"]
    workers = [
        subprocess.Popen(command, env={**os.environ, "LOCALCONC_HOME": home}, stdout=subprocess.PIPE, text=True)
        for home in homes
        for _ in range(WORKERS_EACH)
    ]
    log = [line for worker in workers for line in worker.communicate()[0].splitlines()]
    if len(log) != len(workers) * JOBS_EACH:
        raise SystemExit("A worker failed; what it printed above says why.")
    jobs = [[float(moment) for moment in line.split()] for line in log]
    changes = sorted([(begin, 1) for begin, _ in jobs] + [(end, -1) for _, end in jobs])
    inside = most = 0
    for _, change in changes:
        inside += change
        most = max(most, inside)
    return most


@contextmanager
def prefect_server(directory: Path) -> Iterator[None]:
    """The server that `PREFECT_API_URL` names; one on this machine if it names none."""
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    if find_spec("prefect") is None:
        raise SystemExit("For a server of its own, this example needs Prefect: pip install '.[prefect]'")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ["PREFECT_HOME"] = str(directory)
    os.environ["PREFECT_API_URL"] = url = f"http://127.0.0.1:{port}/api"
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
        env={**os.environ, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_it_answers(url, server)
        yield
    finally:
        server.terminate()
        server.wait()


def wait_until_it_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the server is ready."""
    without_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with without_proxies.open(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The Prefect server does not start: try `prefect server start`.")


def main() -> None:
    """Compare both ways, and make sure that the shared limit holds."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        homes = [f"{directory}/machine-1", f"{directory}/machine-2"]
        print(f"A limit of {LIMIT}, two machines with {WORKERS_EACH} workers each.", flush=True)
        print(f"Each with a home of its own: {most_at_once(homes)} jobs at once.", flush=True)
        with prefect_server(Path(directory) / "prefect"):
            most = most_at_once(["prefect:", "prefect:"])
    print(f"Both with LOCALCONC_HOME=prefect: {most} jobs at once.")
    if most > LIMIT:
        raise SystemExit("The limit was exceeded.")


if __name__ == "__main__":
    work() if sys.argv[1:] == ["work"] else main()
