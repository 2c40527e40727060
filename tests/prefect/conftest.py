"""One Prefect server for all tests of a session, started from a database that is made once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest

from tests.prefect.client import use_server
from tests.prefect.server import PrefectServer, copy_of, prepare


@pytest.fixture(autouse=True)
def _needs_prefect() -> None:
    if find_spec("prefect") is None:
        pytest.skip("Prefect is not installed: pip install 'localconc[prefect]'")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a server whose database is ready, to be copied."""
    if find_spec("prefect") is None:
        pytest.skip("Prefect is not installed: pip install 'localconc[prefect]'")
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def server(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """The server that most tests share, each with limits of its own."""
    shared = PrefectServer(copy_of(prepared, tmp_path_factory.mktemp("server") / "home"))
    shared.start()
    yield shared
    shared.stop()


@pytest.fixture
def on_server(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    """Let the shared server keep the limits of this process."""
    from localconc._prefect import close_keepers

    use_server(monkeypatch, server.url)
    yield server
    close_keepers()


@pytest.fixture
def own_server(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    """A server that this test may stop, for the limits of this process."""
    from localconc._prefect import close_keepers

    own = PrefectServer(copy_of(prepared, tmp_path / "server"))
    own.start()
    use_server(monkeypatch, own.url)
    yield own
    close_keepers()
    own.stop()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"limit-{uuid4()}-x"
