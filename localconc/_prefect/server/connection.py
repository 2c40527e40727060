"""Prefect's client for one server, in localconc's own terms.

One thread uses a connection. By default the client would retry and pause by itself for up to a minute, and all calls of
the process would wait for that thread. So it does neither here; each call decides for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from localconc._prefect.server import errors
from localconc._prefect.server.errors import Refused, Unreachable
from localconc._prefect.shared import Limit, LimitRef, moment

if TYPE_CHECKING:
    from localconc._prefect.server.address import Address

#: How long one question may take: other questions wait behind it, and leases to be renewed.
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0

#: A server closes connections that are idle for 5 s; a question that is sent at that very moment is lost.
KEEP_ALIVE_SECONDS = 4.0

#: Answers after which Prefect's client would pause and try again.
PAUSING_STATUSES = frozenset([408, 429, 502, 503])

#: Makes the transport below the client; None for the client's own. Tests put one here that fails.
make_transport: Callable[[], Any] | None = None

#: Names that the server finds by a path, which neither ends it nor leads elsewhere.
_READABLE_BY_NAME = re.compile(r"(?!\.{1,2}\Z)[^\x00-\x1f\x7f?#]+\Z")


class Granted(NamedTuple):
    """Slots that the server granted; without a lease they drain by themselves."""

    lease_id: UUID | None
    limits: tuple[LimitRef, ...]


class Connection:
    """Prefect's client for one server. Made in any thread, used by one.

    Raises:
        StoreError: the address can't be used.
    """

    def __init__(self, address: Address) -> None:
        import httpx
        from prefect.client.orchestration import get_client

        settings: dict[str, Any] = {
            "timeout": httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            "limits": httpx.Limits(max_connections=1, keepalive_expiry=KEEP_ALIVE_SECONDS),
            "event_hooks": {"response": [_refuse_to_pause]},
        }
        if make_transport is not None:
            settings["transport"] = make_transport()
        self.url = address.shown
        self.has_answered = False
        self.version = "unknown"
        self._ids: dict[str, UUID] = {}
        try:
            self._client = get_client(sync_client=True, httpx_settings=settings)
        except (httpx.InvalidURL, ValueError) as error:
            raise errors.bad_address(self.url, error) from error
        self._is_cloud = self._client.server_type.name == "CLOUD"
        self._settings = _settings_without_retries()
        _connect_once(self._client)

    def in_use(self) -> AbstractContextManager[object]:
        """Return a block with Prefect's settings from when the connection was made, but without retries."""
        return self._settings

    def check(self) -> None:
        """Make sure, once, that a Prefect server is there.

        Raises:
            Unreachable, StoreError: there is none, or it refuses the credentials.
        """
        if self.has_answered:
            return
        if not self._is_cloud:
            try:
                version = self._ask(self._client.api_version)
            except Refused as refusal:
                raise errors.no_prefect_there(self.url, refusal) from None
            if not isinstance(version, str):
                raise errors.no_prefect_there(self.url, "what answers is something else")
            self.version = version
        self.has_answered = True

    def check_leases(self) -> None:
        """Make sure that the server gives leases; changes nothing.

        Raises:
            StoreError: it is too old.
        """
        try:
            self.renew(uuid4(), 60.0)
        except Refused as refusal:
            if (
                refusal.status in (404, 405) and '"Not Found"' in refusal.text
            ):  # no such path, rather than no such lease
                raise errors.too_old(self.url, self.version) from None

    # ---- slots -----------------------------------------------------------------------------------------------

    def take(self, names: tuple[str, ...], slots: int, lease_seconds: float, holder: Any) -> Granted:
        """Take slots of all the limits of these names that exist, with a lease.

        Raises:
            Refused: with status 423, some have too few free slots; with 422, more slots than a limit has.
        """
        extra = {} if holder is None else {"holder": _lease_holder(holder)}
        try:
            answer = self._ask(
                lambda: self._client.increment_concurrency_slots_with_lease(
                    list(names), slots, "concurrency", lease_seconds, **extra
                ).json()
            )
        except Refused as refusal:
            if refusal.status in (404, 405):
                raise errors.too_old(self.url, self.version) from None
            raise
        return Granted(UUID(answer["lease_id"]), _limit_refs(answer["limits"]))

    def take_to_drain(self, names: tuple[str, ...], slots: int) -> Granted:
        """Take slots of limits with decay, which drain by themselves. Raises as `take` does."""
        answer = self._ask(lambda: self._client.increment_concurrency_slots(list(names), slots, "rate_limit").json())
        return Granted(None, _limit_refs(answer))

    def renew(self, lease_id: UUID, lease_seconds: float) -> None:
        """Let a lease last so long from now.

        Raises:
            Refused: with status 410 (404 from older servers), there is no such lease any more.
        """
        self._ask(lambda: self._client.renew_concurrency_lease(lease_id, lease_seconds))

    def release(self, lease_id: UUID) -> None:
        """Release the slots of a lease; one that the server does not know is released already.

        Raises:
            Refused: with status 409, a limit of it has 0 slots, and the server stumbles over that.
        """
        self._ask(lambda: self._client.release_concurrency_slots_with_lease(lease_id))

    # ---- limits ----------------------------------------------------------------------------------------------

    def read(self, name_or_id: str | UUID) -> Limit | None:
        """Read a limit; None if there is none."""
        if isinstance(name_or_id, str) and not _is_readable_by_name(name_or_id):
            return self._read_by_id_of(name_or_id)
        try:
            return _limit(self._ask(lambda: self._client.read_global_concurrency_limit_by_name(str(name_or_id))))
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    def _read_by_id_of(self, name: str) -> Limit | None:
        """Read a limit whose name can't be part of a path by its id, which the list gives the first time."""
        known_id = self._ids.get(name)
        limit = None if known_id is None else self.read(known_id)
        if limit is None or limit.name != name:
            limit = self._find_in_list(name)
            if limit is not None and limit.name == name:
                self._ids[name] = limit.id
        return limit

    def read_page(self, offset: int) -> list[Limit]:
        """Read some limits of the list, from this place on; none at its end."""
        whole_page: Any = None  # the server's own number: a larger one would be refused
        page = self._ask(lambda: self._client.read_global_concurrency_limits(limit=whole_page, offset=offset))
        return [_limit(limit) for limit in page]

    def create(self, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> UUID:
        """Create a limit.

        Raises:
            Refused: with status 409, the name is taken.
        """
        from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

        wanted = GlobalConcurrencyLimitCreate(
            name=name, limit=limit, active=active, active_slots=active_slots, slot_decay_per_second=decay
        )
        limit_id: UUID = self._ask(lambda: self._client.create_global_concurrency_limit(wanted))
        return limit_id

    def update(self, limit_id: UUID, changes: dict[str, Any]) -> None:
        """Change a limit.

        Raises:
            Refused: with status 404, there is none; with 409, the new name is taken.
        """
        from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

        wanted = GlobalConcurrencyLimitUpdate(**changes)
        self._ask(lambda: self._client.update_global_concurrency_limit(str(limit_id), wanted))

    def delete(self, limit_id: UUID) -> None:
        """Delete a limit.

        Raises:
            Refused: with status 404, there is none.
        """
        self._ask(lambda: self._client.delete_global_concurrency_limit_by_name(str(limit_id)))

    def close(self) -> None:
        """Close the sockets."""
        self._client._client.close()

    def _find_in_list(self, name: str) -> Limit | None:
        with_this_id = None
        offset = 0
        while page := self.read_page(offset):
            for limit in page:
                if limit.name == name:
                    return limit
                if str(limit.id) == name.lower():
                    with_this_id = limit
            offset += len(page)
        return with_this_id

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Put a question to the client; once more, if the server closed the connection at that moment.

        It may have answered the first one: slots that it granted then have a lease that ends by itself.
        """
        try:
            with self._translated():
                return question()
        except Unreachable as trouble:
            if not trouble.was_cut:
                raise
        with self._translated():
            return question()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the client raises into `Unreachable`, `Refused` and `StoreError`."""
        import httpx
        from prefect.exceptions import PrefectException

        try:
            yield
        except (httpx.HTTPStatusError, PrefectException) as error:
            response = getattr(getattr(error, "http_exc", error), "response", None)
            if response is None:
                raise Unreachable(f"{type(error).__name__}: {error}") from error
            raise self._refusal(response) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise errors.bad_address(self.url, error) from error
        except httpx.HTTPError as error:
            was_cut = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
            raise Unreachable(str(error) or type(error).__name__, was_cut=was_cut) from error
        except (ValueError, KeyError, TypeError) as error:
            if self.has_answered:
                raise
            raise errors.no_prefect_there(self.url, "what answers is something else") from error

    def _refusal(self, response: Any) -> Exception:
        status = response.status_code
        text = response.text[:200]
        if status == 403 and "CSRF" in text:
            return Unreachable(text)  # the client has a new token for the next question
        if status in (401, 403):
            return errors.bad_credentials(self.url, status)
        if status >= 500:
            return Unreachable(f"status {status}")
        return Refused(status, text, _seconds(response.headers.get("Retry-After")))


def _is_readable_by_name(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return _READABLE_BY_NAME.match(name) is not None
    return False  # the server would look for an id


def _limit_refs(answer: list[dict[str, Any]]) -> tuple[LimitRef, ...]:
    return tuple(LimitRef(0, UUID(limit["id"]).bytes, limit["name"], limit["limit"], 0, 0.0) for limit in answer)


def _limit(answer: Any) -> Limit:
    return Limit(
        id=answer.id,
        name=answer.name,
        limit=answer.limit,
        active=bool(answer.active),
        active_slots=answer.active_slots,
        denied_slots=0,
        slot_decay_per_second=answer.slot_decay_per_second,
        avg_slot_occupancy_seconds=0.0,
        created=moment(answer.created.timestamp()),
        updated=moment(answer.updated.timestamp()),
    )


def _lease_holder(holder: Any) -> Any:
    from prefect.client.schemas.objects import ConcurrencyLeaseHolder

    return holder if isinstance(holder, ConcurrencyLeaseHolder) else ConcurrencyLeaseHolder.model_validate(holder)


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else max(float(header), 0.0)
    except ValueError:
        return None


def _refuse_to_pause(response: Any) -> None:
    """Raise where Prefect's client would sleep; it calls this before it looks at the response itself."""
    if response.status_code in PAUSING_STATUSES:
        raise Unreachable(f"status {response.status_code}")


def _settings_without_retries() -> AbstractContextManager[object]:
    from prefect.context import SettingsContext, get_settings_context
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

    present = get_settings_context()
    changed = present.settings.copy_with_update(updates={PREFECT_CLIENT_MAX_RETRIES: 0})
    context: AbstractContextManager[object] = SettingsContext(profile=present.profile, settings=changed)
    return context


def _connect_once(client: Any) -> None:
    """Let a connection that is refused fail at once: the client's transport would try for another 1.5 s."""
    find = getattr(client._client, "_transport_for_url", None)
    pool = getattr(find(client.api_url), "_pool", None) if callable(find) else None
    if pool is not None and hasattr(pool, "_retries"):
        pool._retries = 0
