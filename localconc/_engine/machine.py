"""This machine as a keeper of limits: the engine of one home, with all operations on it."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.waiting import threads
from localconc._locks import new_lock
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.core.calls import Call
    from localconc._engine.engine import Engine
    from localconc._engine.holding.holdings import Handle


#: Held while operations are loaded. A fork waits for it: in the child, nobody would end what a thread has begun.
loading: Final = new_lock()


class _Later:
    """An operation that is loaded, and bound to the engine, when it is first used: most programs only acquire."""

    def __init__(self, module: str, function: str) -> None:
        self._module = module
        self._function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, machine: Machine | None, owner: type) -> Any:
        if machine is None:
            return self
        try:
            with loading:
                function = getattr(import_module(f"localconc._engine.{self._module}"), self._function)
        except (ImportError, AttributeError) as error:
            raise StoreError(
                f"{self._name}() can't be loaded: a signal handler or finalizer has interrupted this very import, or "
                "this process does not see Python's files any more. Use limits outside handlers, or once before."
            ) from error
        operation = machine.__dict__[self._name] = partial(function, machine.engine)
        return operation


class Machine:
    """The limits of one home, the counterpart of a server's keeper. See `localconc._keeper.Keeper`."""

    # Bound, not wrapped: every call goes through these, and through not one function more than it needs.

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.acquire: Callable[[Call, str, int], Handle] = partial(threads.acquire, engine)
        self.release: Callable[[Any], None] = partial(threads.release, engine)
        self.release_later: Callable[[Any], None] = engine.holdings.release_later
        self.handle_of: Callable[[int], Handle | None] = engine.holdings.handle_of

    acquire_async = _Later("waiting.tasks", "acquire")
    release_async = _Later("waiting.tasks", "release")

    read_refs = _Later("operations.reading", "read_refs")
    read = _Later("operations.reading", "read")
    read_all = _Later("operations.reading", "read_all")
    holders = _Later("operations.reading", "holders")
    waiters = _Later("operations.reading", "waiters")

    create = _Later("operations.limits", "create")
    ensure = _Later("operations.limits", "ensure")
    ensure_all = _Later("operations.limits", "ensure_all")
    update = _Later("operations.limits", "update")
    reset = _Later("operations.limits", "reset")
    delete = _Later("operations.limits", "delete")
    pause = _Later("operations.limits", "pause")
    resume = _Later("operations.limits", "resume")

    events = _Later("operations.history", "events")
    history = _Later("operations.history", "read")
    statistics = _Later("operations.history", "statistics")

    def __repr__(self) -> str:
        return f"<This machine's limits in {self.engine.directory}>"

    def numbers(self, serial: int) -> dict[str, tuple[int, ...] | None]:
        """Return the slot numbers of an acquisition of this process by the name of the limit."""
        try:
            return self.engine.holdings.numbers(serial)
        except (Busy, Damaged):
            return threads.run(self.engine, partial(self.engine.holdings.numbers, serial))

    def machine(self, what: str) -> Engine:
        """Return the engine."""
        return self.engine
