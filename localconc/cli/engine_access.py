"""All that the command line takes from the engine, besides the public calls and the `snapshot`.

No other module of the command line knows the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localconc import _environment as environment
from localconc._engine import registry
from localconc._engine.core import arguments
from localconc._engine.core.calls import strict_default
from localconc._engine.core.rules import MAX_PAUSE_SECONDS
from localconc._engine.homes.home import DATABASE_NAME, home_source, is_on_server, other_homes
from localconc._engine.liveness.lock_notes import hand_on
from localconc._engine.operations import reading
from localconc._engine.waiting.threads import run
from localconc.cli.snapshot import take_snapshot
from localconc.errors import LimitNotFoundError, NotSupportedError
from localconc.limits import home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from uuid import UUID

    from localconc._engine.core.history import Statistics
    from localconc._engine.operations import doctor
    from localconc._engine.store.rows.ledger import Ledger
    from localconc.limits import Holder, Limit
    from localconc.sync import Occupancy

    Finding = doctor.Finding

    #: A limit as files define it: its name, its slots, whether it is enforced, its decay.
    Definition = tuple[str, int, bool, float]

__all__ = ["DATABASE_NAME", "MAX_PAUSE_SECONDS", "NotSupportedError", "home_source", "is_on_server", "other_homes"]


# ---- names and switches ----------------------------------------------------------------------------------------------


def missing_names(names: Iterable[str]) -> dict[str, bool]:
    """Find the names that no operator and no call has defined: True for a placeholder, False for a missing limit."""
    if is_on_server():
        return {name: False for name in names if not _is_on_server_as(name)}

    def work(ledger: Ledger) -> dict[str, bool]:
        rows = {name: ledger.limit_named(name) for name in names}
        return {name: row is not None for name, row in rows.items() if row is None or not row.configured}

    return reading.look(registry.current(), work)


def _is_on_server_as(name: str) -> bool:
    try:
        return registry.keeper().read(name).name == name  # an id would be found, too
    except LimitNotFoundError:
        return False


def check_names(names: list[str]) -> None:
    """Check names before a command looks anything up.

    Raises:
        ValueError: no limit can have one of them.
    """
    arguments.limit_names(names)


def check_name(name: str) -> None:
    """Check the name of a limit that a command may make.

    Raises:
        ValueError: no limit can have it.
    """
    arguments.limit_name("name", name)


def limits_are_off() -> bool:
    """Tell whether the environment switches all limits off."""
    return environment.is_disabled()


def is_strict_by_default() -> bool:
    """Tell whether the environment makes calls strict that don't say so themselves."""
    return strict_default()


def names_for_completion() -> list[str]:
    """List the limits by name; makes no store if there is none."""
    if not is_on_server() and not (home() / DATABASE_NAME).exists():
        return []
    return [status.name for status in take_snapshot(reap=False).limits]


def statistics_of_all(since: datetime | None) -> list[Statistics]:
    """Sum up how each limit was used, from one look at the history."""
    return registry.keeper().statistics(None, arguments.since(since))


# ---- definitions -----------------------------------------------------------------------------------------------------


def checked_definition(name: Any, limit: Any, active: bool, slot_decay_per_second: Any) -> Definition:
    """Check a definition that a file holds.

    Raises:
        ValueError, TypeError: a field is out of range; the message names it and the value.
    """
    return (
        arguments.limit_name("name", name),
        arguments.whole("limit", limit, 0),
        active,
        arguments.decay(slot_decay_per_second),
    )


def ensure_all(definitions: list[Definition]) -> list[Limit]:
    """Create or update limits in one transaction: all of them, or none.

    Raises:
        StoreError: a server, which has no such transaction, refused one; it says how far it came.
    """
    return registry.keeper().ensure_all(definitions)


def reset(limit_id: UUID) -> list[Holder]:
    """Discard every holder of a limit; return those that the keeper knows."""
    return registry.keeper().reset(limit_id)


# ---- slots that a command is to hold ---------------------------------------------------------------------------------


def descriptor_to_hand_on() -> int | None:
    """Return the descriptor that proves that this process lives; a command that inherits it keeps the slots held.

    Returns:
        None if this process holds no slot, because limits are off, missing or disabled. None for a server, whose lease
        ends by itself.
    """
    if is_on_server():
        return None
    engine = registry.current()
    owner = engine.membership.owner
    if owner is None or not engine.holdings.grants:
        return None
    hand_on(owner.descriptor)
    return owner.descriptor


def slot_numbers(occupancy: Occupancy) -> tuple[int, ...]:
    """Number the held slots; () if the limit is not enforced.

    Raises:
        ValueError: the limit decays, or there are several.
        NotSupportedError: a server keeps the limit.
    """
    return occupancy.numbers


def become_command(pid: int, command: str) -> None:
    """Let a command hold the slots of this process: others see it as the holder, and its end frees the slots."""
    engine = registry.current()
    run(engine, lambda: engine.become_command(pid, command))


# ---- homes, servers, and the doctor ----------------------------------------------------------------------------------


def server_address() -> str:
    """Return the address of the server that keeps the limits, without credentials.

    Raises:
        StoreError: Prefect is not installed, or its settings name no server.
    """
    from localconc._prefect import server_address

    return server_address()


def examine() -> list[Finding]:
    """Check everything about the home, or the server, without changing anything."""
    from localconc._engine.operations import doctor

    if not is_on_server():
        return doctor.examine(home())
    from localconc._prefect.doctor import examine as examine_server

    return [doctor.Finding(found.check, found.state, found.text, found.remedy) for found in examine_server()]


def check_can_repair() -> None:
    """Refuse to repair a server.

    Raises:
        NotSupportedError: a server keeps the limits.
    """
    registry.refuse_server("localconc doctor --repair")


def repair(put_in_order: Callable[[Any], None]) -> None:
    """Carry out the repair of a finding."""
    put_in_order(registry.current())
