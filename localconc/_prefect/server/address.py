"""Which server keeps the limits: what Prefect's own settings say at this moment."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from localconc._prefect.server.errors import bad_settings, no_address, not_installed


class Address(NamedTuple):
    """A server and the credentials for it. Two that are equal can share a connection."""

    url: str
    api_key: str | None
    auth_string: str | None

    @property
    def shown(self) -> str:
        """The address as messages show it: without credentials."""
        try:
            parts = urlsplit(self.url)
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        except ValueError:
            return self.url

    def __repr__(self) -> str:
        return f"<Prefect server at {self.shown}>"


def address_in_settings() -> Address:
    """Read the address from Prefect's settings: profile, environment, or a settings context of this thread.

    Raises:
        StoreError: Prefect is not installed, its settings can't be used, or no address is set. Prefect's client would
            then start a server of its own, which would limit nothing outside this process.
    """
    try:
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL

        url = PREFECT_API_URL.value()
        credentials = _plain(PREFECT_API_KEY.value()), _plain(PREFECT_API_AUTH_STRING.value())
    except ImportError as error:
        raise not_installed(error) from error
    except ValueError as error:  # Prefect checks its settings when it reads them
        raise bad_settings(error) from error
    if not url:
        raise no_address()
    return Address(str(url), *credentials)


def _plain(secret: Any) -> Any:
    reveal = getattr(secret, "get_secret_value", None)
    return reveal() if callable(reveal) else secret
