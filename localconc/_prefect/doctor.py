"""Whether all is well with the server: its address, its answers, its leases."""

from __future__ import annotations

from typing import Literal, NamedTuple

from localconc._prefect.keepers import open_keeper
from localconc._prefect.server.address import address_in_settings
from localconc.errors import LocalconcError, StoreError


class Finding(NamedTuple):
    """The result of one check."""

    check: str
    state: Literal["well", "note", "wrong"]
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Check the server that Prefect's settings name; change nothing."""
    try:
        address = address_in_settings()
    except StoreError as error:
        return [Finding("server", "wrong", str(error))]
    try:
        keeper = open_keeper()
        limits = keeper.read_all()
        keeper.check_leases()
    except LocalconcError as error:
        return [Finding("server", "wrong", str(error))]
    return [
        Finding("server", "well", f"A Prefect server answers at {address.shown} (version {keeper.connection.version})"),
        Finding("limits", "well", f"It keeps {len(limits)} limit{'' if len(limits) == 1 else 's'}"),
        Finding(
            "leases",
            "note",
            "It may forget its leases when it restarts: it keeps them in memory unless set up otherwise",
            "Set PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE on the server: then slots held at that time still come back.",
        ),
    ]
