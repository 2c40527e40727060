"""Why slots were refused for good, with what to type about it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from localconc.cli.lookup import look, suggestion

if TYPE_CHECKING:
    from localconc._engine.model import LimitRow


def explain(error: Exception, asked: dict[str, Any], *, needs_decay: bool) -> str:
    """A refusal in the words of the command line; in the library's own where those say it as well."""
    limits = {found.limit.name: found.limit for found in look().standings}
    for name in asked["names"]:
        row = limits.get(name)
        if row is None or not row.configured:
            reason = _missing(name, asked, needs_decay=needs_decay)
        else:
            reason = _unfit(row, asked, needs_decay=needs_decay)
        if reason:
            return reason
    return str(error)


def _missing(name: str, asked: dict[str, Any], *, needs_decay: bool) -> str:
    if asked["limit"] is None:
        return f"There is no limit {name!r}{suggestion(name)}" if asked["strict"] else ""
    if needs_decay and not asked["slot_decay_per_second"]:
        return f"The limit {name!r} needs a decay to limit a rate: give --rate as well, such as --rate 100/minute"
    return ""


def _unfit(row: LimitRow, asked: dict[str, Any], *, needs_decay: bool) -> str:
    if not row.active:
        remedy = f"enforce it with localconc enable {shlex.quote(row.name)}, or leave out --strict"
        return f"The limit {row.name!r} is disabled: {remedy}" if asked["strict"] else ""
    if needs_decay and not row.decay:
        remedy = f"give it one, such as localconc update {shlex.quote(row.name)} --rate 100/minute"
        return f"The limit {row.name!r} has no decay, so it limits no rate: {remedy}, or use localconc run"
    return ""
