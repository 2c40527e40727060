"""The object that a caller gets while it holds slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from localconc._engine.core.clock import wall
from localconc._engine.core.display import moment
from localconc._engine.core.records import Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from pendulum import DateTime

    from localconc._engine.core.views import Limit
    from localconc._keeper import Handle, Keeper

#: The flag of a coroutine function's code.
_CO_COROUTINE: Final = 0x80


@dataclass(slots=True, eq=False, repr=False)
class Occupancy:
    """The slots that a block, or a call of `acquire`, holds.

    >>> with concurrency("database") as occupancy:
    ...     print(occupancy.slots, occupancy.waited_seconds)
    >>> occupancy = acquire("licence", limit=3)
    >>> occupancy.release()

    Attributes:
        slots: how many slots of each limit.
        waited_seconds: how long the call waited for them.
        acquired_at: when they were acquired (UTC).
        limits: the limits whose slots are held, as they are now, without those that are not enforced.
    """

    _keeper: Keeper | None
    _serial: int
    _grant: Grant
    _names: tuple[str, ...]
    _release: Callable[[Keeper | None, Handle | None], Any]
    _handle: Handle | None = None  # a block keeps it itself: its slots are released when it is dropped
    _numbers: Mapping[str, tuple[int, ...] | None] | None = None
    _has_released: bool = False

    @property
    def slots(self) -> int:
        return self._grant.slots

    @property
    def waited_seconds(self) -> float:
        return self._grant.waited_seconds

    @property
    def acquired_at(self) -> DateTime:
        return moment(self._grant.acquired_wall)

    @property
    def limits(self) -> tuple[Limit, ...]:
        return () if self._keeper is None else self._keeper.read_refs(self._grant.refs)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which of the limit's slots these are: ascending numbers from 0, the lowest that no other holder has.

        The first use gives the numbers, and they stay until the release. They are () if the limit is not enforced.

        >>> with concurrency("gpu", limit=4) as occupancy:
        ...     os.environ["CUDA_VISIBLE_DEVICES"] = str(occupancy.numbers[0])

        Raises:
            ValueError: there are several limits (use `numbers_of`), or the limit has a decay.
            RuntimeError: the slots were released before the first use.
            NotSupportedError: a server keeps the limit, and numbers no slots.
        """
        if len(self._names) > 1:
            names = ", ".join(map(repr, self._names))
            raise ValueError(f"these slots are of several limits ({names}): use numbers_of(name)")
        return self.numbers_of(self._names[0]) if self._names else ()

    def numbers_of(self, name: str) -> tuple[int, ...]:
        """Return which slots of one of the limits these are, as `numbers` does.

        Args:
            name: of the limit, as the call named it.

        Raises:
            ValueError: the call did not name the limit, or the limit has a decay, so that its slots drain while held.
            RuntimeError: the slots were released before the first use.
            NotSupportedError: a server keeps the limit, and numbers no slots.
        """
        if name not in self._names:
            raise ValueError(f"this occupancy has no limit {name!r}, but {', '.join(map(repr, self._names)) or 'none'}")
        if self._keeper is None or all(ref.name != name for ref in self._grant.refs):
            return ()
        known: Mapping[str, tuple[int, ...] | None] = self._numbers or {}
        if known.get(name) is None:
            known = self._numbers = {**known, **self._keeper.numbers(self._serial)}
        found = known.get(name, ())
        if found is None:
            raise ValueError(f"the slots of {name!r} drain while they are held, so they have no numbers")
        if not found:
            raise RuntimeError(f"the slots of {name!r} were released before anybody asked for their numbers")
        return found

    def release(self) -> Any:
        """Release the slots, once, from any thread or task of the process; a second call does nothing.

        It never raises. Of `localconc.asyncio` it is awaited, and raises nothing but a cancellation.
        """
        handle, self._handle = self._handle, None
        self._has_released = True
        if handle is None and self._keeper is not None:
            handle = self._keeper.handle_of(self._serial)
        return self._release(self._keeper, handle)

    def __enter__(self) -> Occupancy:
        if self._is_awaited():
            raise self._refused("this occupancy is of localconc.asyncio: use `async with`")
        self._check_not_released()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    async def __aenter__(self) -> Occupancy:
        if not self._is_awaited():
            raise self._refused("this occupancy is of localconc.sync: use `with`")
        self._check_not_released()
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.release()

    def _refused(self, message: str) -> TypeError:
        """Drop the slots, which releases them, and return the error for the other kind of `with`."""
        self._handle = None
        return TypeError(message)

    def _check_not_released(self) -> None:
        """Refuse a `with` whose body would hold nothing.

        Raises:
            RuntimeError: the slots were released, by `release` or at the end of the block that acquired them.
        """
        is_released = self._has_released
        if not is_released and self._handle is None and self._keeper is not None and self._grant.refs:
            is_released = self._keeper.handle_of(self._serial) is None
        if is_released:
            raise RuntimeError("these slots were released: acquire them again for another `with`")

    def _is_awaited(self) -> bool:
        """Return whether a coroutine function releases the slots."""
        code = getattr(self._release, "__code__", None)
        return code is not None and bool(code.co_flags & _CO_COROUTINE)

    def __repr__(self) -> str:
        names = ", ".join(repr(ref.name) for ref in self._grant.refs) or "nothing"
        return f"<Occupancy of {self.slots} slot(s) of {names}, waited {self.waited_seconds:.3f} s>"


def occupancy_of_nothing(names: tuple[str, ...], release: Callable[[Keeper | None, Handle | None], Any]) -> Occupancy:
    """Return the occupancy of a call that names no limit, or is made while limits are switched off."""
    return Occupancy(None, 0, Grant((), 0, wall(), 0.0, 0.0, "", "", 0), names, release)
