"""The environment of a command that is to know which slots it holds."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from localconc.cli.engine_access import NotSupportedError, slot_numbers
from localconc.cli.errors import CommandError, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localconc.sync import Occupancy

#: Holds the numbers of the slots that a command got, with commas between them.
SLOT_VARIABLE = "LOCALCONC_SLOT"


def check(variables: Sequence[str], names: list[str]) -> None:
    """Refuse early, rather than after a wait, variables that can't be set.

    Raises:
        WrongUsage: one has no name that a variable can have, or there is no one limit whose slots they could number.
    """
    for variable in variables:
        if not variable or "=" in variable:
            raise WrongUsage(f"--slot-env must be the name of an environment variable, not {variable!r}")
    if variables and len(set(names)) > 1:
        first, second = map(shlex.quote, list(dict.fromkeys(names))[:2])
        nested = f"localconc run {first} --slot-env {variables[0]} -- localconc run {second} -- COMMAND"
        raise WrongUsage(f"--slot-env numbers the slots of one limit, not of {len(set(names))}: {nested}")


def with_numbers(occupancy: Occupancy, variables: Sequence[str]) -> dict[str, str]:
    """Put the numbers of the held slots into `LOCALCONC_SLOT`, and into the variables that were asked for.

    A variable that holds a list already gets the entries with these numbers. Where slots have no numbers, because the
    limit is not enforced, decays, or is one of several, `LOCALCONC_SLOT` is absent.

    Raises:
        CommandError: a list is too short, or variables were asked for and a limit with decay has no numbers.
    """
    environment = dict(os.environ)
    environment.pop(SLOT_VARIABLE, None)  # an outer command's would be taken for this one's
    try:
        numbers = slot_numbers(occupancy)
    except (ValueError, NotSupportedError) as error:
        if variables:
            raise CommandError(f"--slot-env: {error}") from None
        return environment
    if not numbers:
        return environment
    environment[SLOT_VARIABLE] = ",".join(map(str, numbers))
    for variable in variables:
        environment[variable] = _chosen(variable, environment.get(variable, ""), numbers)
    return environment


def _chosen(variable: str, current: str, numbers: tuple[int, ...]) -> str:
    """Choose the entries with these numbers from a list with commas; the numbers themselves if there is no list."""
    if not current.strip():
        return ",".join(map(str, numbers))
    entries = [entry.strip() for entry in current.split(",")]
    if max(numbers) >= len(entries):
        raise CommandError(
            f"--slot-env {variable}: the command got slot {max(numbers)} (from 0), but {variable}={current} lists "
            f"only {len(entries)}. Lower the limit to {len(entries)}, or list more."
        )
    return ",".join(entries[number] for number in numbers)
