"""What can go wrong on the way to the server, in words for the user."""

from __future__ import annotations

from localconc.errors import NotSupportedError, StoreError


class Unreachable(Exception):
    """The server gave no answer, or none that counts; it may give one later.

    Attributes:
        was_cut: the connection was there, and ended before the answer came.
    """

    def __init__(self, text: str, *, was_cut: bool = False) -> None:
        super().__init__(text)
        self.was_cut = was_cut


class Refused(Exception):
    """The server answered that it does not do what it was asked.

    Attributes:
        status: of the HTTP response.
        text: what the server says about it.
        retry_after: after how many seconds to ask again, if the server tells.
    """

    def __init__(self, status: int, text: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"status {status}: {text}")
        self.status = status
        self.text = text
        self.retry_after = retry_after


class NoAnswer(Exception):
    """The deadline has passed, and the answer has not come."""


def no_address() -> StoreError:
    return StoreError(
        "LOCALCONC_HOME=prefect: needs the address of a Prefect server, and Prefect's settings name none. Set "
        "PREFECT_API_URL=http://HOST:4200/api, or run `prefect config set PREFECT_API_URL=…`."
    )


def bad_settings(why: object) -> StoreError:
    return StoreError(
        f"Prefect's settings can't be used ({why}). Look at the environment variables PREFECT_… and at `prefect config "
        "view`."
    )


def bad_address(url: str, why: object) -> StoreError:
    return StoreError(
        f"The address of the Prefect server can't be used ({why}): {url!r}. Set PREFECT_API_URL to one such as "
        "http://HOST:4200/api."
    )


def not_installed(why: object) -> StoreError:
    return StoreError(
        f"LOCALCONC_HOME=prefect: needs Prefect's client ({why}). Install it with `pip install 'localconc[prefect]'`, "
        "or in a clone with `pip install '.[prefect]'`."
    )


def no_prefect_there(url: str, why: object) -> StoreError:
    return StoreError(
        f"No Prefect server answers at {url} ({why}). Set PREFECT_API_URL to its address, which usually ends in /api."
    )


def unreachable(url: str, why: object) -> StoreError:
    return StoreError(
        f"The Prefect server at {url} can't be reached ({why}). Start it, or set PREFECT_API_URL to where it is."
    )


def silent(url: str, seconds: float) -> StoreError:
    return unreachable(url, f"no answer within {seconds:g} seconds")


def bad_credentials(url: str, status: int) -> StoreError:
    return StoreError(
        f"The Prefect server at {url} refuses the credentials (status {status}). Set PREFECT_API_AUTH_STRING, or "
        "PREFECT_API_KEY for Prefect Cloud, to what it expects."
    )


def too_old(url: str, version: str) -> StoreError:
    return StoreError(
        f"The Prefect server at {url} is too old (version {version}): it has no leases for concurrency slots. "
        "Upgrade it to 3.4.10 or newer."
    )


def refused(url: str, refusal: Refused) -> StoreError:
    return StoreError(f"The Prefect server at {url} refused a request ({refusal}). Its log says why.")


def not_supported(url: str, what: str, remedy: str) -> NotSupportedError:
    return NotSupportedError(f"{what}: the Prefect server at {url} keeps the limits and can't do this. {remedy}")
