"""A real Prefect server for tests, on loopback, with a home of its own: `python -m tests.prefect.server` runs one.

Making its database takes several seconds, so `prepare` makes one and `PrefectServer` starts from a copy of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

START_SECONDS = 90.0
STOP_SECONDS = 15.0
LOG = "server.log"

#: No page, no reports to Prefect's makers, and none of the services that limits have no need of.
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}

FILE_LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


def client_settings(url: str, home: Path) -> dict[str, str]:
    """The environment of a process that uses the server at this address."""
    return {**QUIET, "PREFECT_API_URL": url, "PREFECT_HOME": str(home), "LOCALCONC_HOME": "prefect:"}


class PrefectServer:
    """One server process.

    Args:
        home: where it keeps everything; a directory that exists.
        settings: more of Prefect's settings, by their environment variables.
    """

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--no-ui"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop the server
            )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it: politely first, then for certain."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def suspend(self) -> None:
        """Let it stop answering; connections to it are still accepted."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on answering."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "LOCALCONC"))
        }
        return {**inherited, **QUIET, "PREFECT_HOME": str(self.home), **self._settings}

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"The Prefect server ended with status {process.returncode}: {self.log()}")
            if _is_healthy(self.url):
                return
            time.sleep(0.05)
        raise RuntimeError(f"The Prefect server does not answer after {START_SECONDS:.0f} s: {self.log()}")

    def log(self) -> str:
        """The end of what it has written."""
        with suppress(OSError):
            return (self.home / LOG).read_text(errors="replace")[-4_000:]
        return ""


def prepare(directory: Path) -> Path:
    """Make a home with a database that has all its tables, for servers to start from copies of it."""
    directory.mkdir(parents=True, exist_ok=True)
    server = PrefectServer(directory)
    server.start()
    server.stop()
    return directory


def copy_of(prepared: Path, home: Path) -> Path:
    """A home of its own with the prepared database."""
    shutil.copytree(prepared, home, ignore=shutil.ignore_patterns(LOG))
    return home


def _is_healthy(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(urllib.error.URLError, OSError), opener.open(f"{url}/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Run a server until Ctrl-C, and tell how to use it."""
    with tempfile.TemporaryDirectory(prefix="prefect-", ignore_cleanup_errors=True) as directory:
        server = PrefectServer(Path(directory))
        server.start()
        try:
            print(f"export PREFECT_API_URL={server.url} LOCALCONC_HOME=prefect:", flush=True)
            threading.Event().wait()
        finally:
            server.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        main()
