"""What a user types, whole or in part: names of limits, which are found, suggested and completed, and of files."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from localconc.cli.engine_access import names_for_completion
from localconc.cli.errors import CommandError
from localconc.cli.snapshot import take_snapshot
from localconc.errors import LimitNotFoundError, LocalconcError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from click.shell_completion import CompletionItem

    from localconc.cli.snapshot import LimitStatus, Snapshot

#: The environment variable through which a shell asks for completions.
COMPLETION_VARIABLE = "_LOCALCONC_COMPLETE"

#: What bash does not take for a part of a word, unless it is escaped.
_SPECIAL_IN_BASH = re.compile(r"[^\w@%+=:,./-]")


# ---- finding ---------------------------------------------------------------------------------------------------------


def find(snapshot: Snapshot, name: str) -> LimitStatus:
    """Find a limit by its name or its id.

    Raises:
        CommandError: there is none.
    """
    for status in snapshot.limits:
        if status.name == name:
            return status
    for status in snapshot.limits:
        if str(status.id) == name.lower():
            return status
    raise CommandError(f"There is no limit {name!r}{suggestion(name, snapshot)}")


def chosen(snapshot: Snapshot, names: Sequence[str]) -> Snapshot:
    """Keep only the limits with these names; all of them if no name is given.

    Raises:
        CommandError: a name is no limit's.
    """
    if not names:
        return snapshot
    wanted = {find(snapshot, name).id for name in names}
    return snapshot._replace(limits=[status for status in snapshot.limits if status.id in wanted])


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Suggest the nearest name if the block finds that no limit has this one."""
    try:
        yield
    except LimitNotFoundError:
        raise CommandError(f"There is no limit {name!r}{suggestion(name)}") from None


def suggestion(name: str, snapshot: Snapshot | None = None) -> str:
    """End a sentence on a missing limit."""
    defined = [status.name for status in (snapshot or take_snapshot()).limits if status.configured]
    nearest = nearest_names(name, defined)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return ". See localconc ls for those there are." if defined else ". Make one: localconc create NAME --limit N"


def nearest_names(name: str, names: list[str], cutoff: float = 0.5) -> list[str]:
    """Find the names that may have been meant, the nearest first; capitals make no difference."""
    from difflib import get_close_matches

    by_small: dict[str, list[str]] = {}
    for each in names:
        by_small.setdefault(each.lower(), []).append(each)
    return [each for small in get_close_matches(name.lower(), by_small, 3, cutoff) for each in by_small[small]]


# ---- completing ------------------------------------------------------------------------------------------------------


def complete_name(context: object, parameter: object, incomplete: str) -> list[str]:
    """Complete the name of a limit."""
    return _beginning_with(incomplete, _names())


def complete_names(context: object, parameter: object, incomplete: str) -> list[str]:
    """Complete the last of several names with commas between them."""
    before, comma, _ = incomplete.rpartition(",")
    names = [name.replace(",", "\\,") for name in _names()]
    given = re.split(r"(?<!\\),", before)
    return _beginning_with(incomplete, [before + comma + name for name in names if name not in given])


def complete_file(context: object, parameter: object, incomplete: str) -> list[CompletionItem[str]]:
    """Let the shell complete the name of a file, which it knows how to do."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _beginning_with(incomplete: str, words: list[str]) -> list[str]:
    """Choose the words that begin like this, escaped for bash, which puts them on its line as they come."""
    begun = [word for word in words if word.startswith(incomplete)]
    if os.environ.get(COMPLETION_VARIABLE) == "bash_complete" and not _is_inside_quotes():
        return [_SPECIAL_IN_BASH.sub(r"\\\g<0>", word) for word in begun]
    return begun


def _is_inside_quotes() -> bool:
    """Tell whether the line that is being completed ends inside of quotes, where bash keeps backslashes."""
    try:
        shlex.split(os.environ.get("COMP_WORDS", ""))
    except ValueError as error:
        return "quotation" in str(error)
    return False


def _names() -> list[str]:
    """List the names; none if the store can't be used, because a completion can't show an error."""
    try:
        return names_for_completion()
    except (LocalconcError, OSError):
        return []
