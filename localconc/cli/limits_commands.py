"""Commands that show, make, change and delete limits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localconc import limits
from localconc.cli import json_output, options
from localconc.cli.faults import CommandError, WrongUsage
from localconc.cli.lookup import look, naming, standing
from localconc.errors import LimitExistsError

if TYPE_CHECKING:
    from localconc.limits import Limit


def ls(output: options.Output = "text") -> None:
    """List all limits: slots in use, waiters, decay, age."""
    as_json = options.wants_json(output)
    everything = look()
    if as_json:
        json_output.print_json([json_output.listed_object(found, everything) for found in everything.standings])
        return
    from localconc.cli import render

    render.print_list(everything)


def create(
    name: options.Name,
    limit: options.Limit = None,
    slot_decay_per_second: options.Decay = None,
    rate: options.Rate = None,
    active_slots: options.ActiveSlots = None,
    disable: Annotated[bool, typer.Option("--disable", help="Do not enforce it yet.")] = False,
    output: options.Output = "text",
) -> None:
    """Make a limit."""
    as_json = options.wants_json(output)
    if limit is None:
        raise WrongUsage(f"How many slots? Give --limit N: localconc create {name} --limit 4")
    try:
        created = limits.create_limit(
            name,
            options.whole("--limit", limit),
            active=not disable,
            active_slots=options.whole_or_none("--active-slots", active_slots) or 0,
            slot_decay_per_second=options.decay(slot_decay_per_second, rate) or 0.0,
        )
    except LimitExistsError:
        raise CommandError(f"There is a limit {name!r} already. Change it with localconc update.") from None
    _show_result("Created", created, as_json)


def inspect(
    name: options.Name,
    output: options.Output = "text",
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Write it there.", show_default=False)
    ] = None,
) -> None:
    """Show a limit, who holds its slots and who waits for them."""
    as_json = options.wants_json(output)
    if file is not None and not as_json:
        raise WrongUsage("--file writes JSON: give --output json as well")
    everything = look()
    found = standing(everything, name)
    if as_json:
        shown = json_output.inspected_object(found, everything)
        json_output.print_json(shown, None if file is None else Path(file))
        return
    from localconc.cli import render

    render.print_inspection(found, everything)


def update(
    name: options.Name,
    limit: options.Limit = None,
    slot_decay_per_second: options.Decay = None,
    rate: options.Rate = None,
    active_slots: options.ActiveSlots = None,
    enable: Annotated[bool, typer.Option("--enable", help="Enforce it.")] = False,
    disable: Annotated[bool, typer.Option("--disable", help="Do not enforce it.")] = False,
    new_name: Annotated[
        str | None, typer.Option("--name", metavar="NEW", help="A new name.", show_default=False)
    ] = None,
    output: options.Output = "text",
) -> None:
    """Change a limit. Those who wait on it are answered as if they had just called."""
    as_json = options.wants_json(output)
    if enable and disable:
        raise WrongUsage("--enable and --disable exclude each other: give one of them")
    decay = options.decay(slot_decay_per_second, rate)
    active = True if enable else False if disable else None
    if (limit, decay, active_slots, active, new_name) == (None,) * 5:
        raise WrongUsage("Nothing to change: give --limit, --rate, --active-slots, --enable, --disable or --name")
    with naming(name):
        updated = limits.update_limit(
            name,
            name=new_name,
            limit=options.whole_or_none("--limit", limit),
            active=active,
            active_slots=options.whole_or_none("--active-slots", active_slots),
            slot_decay_per_second=decay,
        )
    _show_result("Updated", updated, as_json)


def enable(name: options.Name, output: options.Output = "text") -> None:
    """Enforce a limit again."""
    as_json = options.wants_json(output)
    with naming(name):
        _show_result("Enabled", limits.update_limit(name, active=True), as_json)


def disable(name: options.Name, output: options.Output = "text") -> None:
    """Stop enforcing a limit; those who wait go ahead."""
    as_json = options.wants_json(output)
    with naming(name):
        _show_result("Disabled", limits.update_limit(name, active=False), as_json)


def delete(name: options.Name, yes: options.Yes = False, output: options.Output = "text") -> None:
    """Delete a limit. Asks first, on a terminal."""
    as_json = options.wants_json(output)
    with naming(name):
        found = limits.read_limit(name)
        _ask(f"Delete the limit {found.name!r}?", yes)
        limits.delete_limit(found.id)
    _show_result("Deleted", found, as_json)


def reset(name: options.Name, yes: options.Yes = False, output: options.Output = "text") -> None:
    """Forget every holder of a limit. All its slots are free then. Asks first, on a terminal."""
    as_json = options.wants_json(output)
    with naming(name):
        found = limits.read_limit(name)
        question = f"Forget who holds {found.active_slots} slot(s) of {found.name!r}? What they run goes on."
        _ask(question, yes)
        _show_result("Reset", limits.update_limit(found.id, active_slots=0), as_json)


def path(output: options.Output = "text") -> None:
    """Show where the database is."""
    from localconc._engine.home import DATABASE_NAME, is_on_a_server

    if is_on_a_server():
        from localconc._prefect import server_address

        server = server_address()
        if options.wants_json(output):
            json_output.print_json({"home": None, "database": None, "server": server})
        else:
            print(server)
        return
    home = limits.home()
    if options.wants_json(output):
        json_output.print_json({"home": str(home), "database": str(home / DATABASE_NAME), "server": None})
    else:
        print(home / DATABASE_NAME)


def _show_result(done: str, limit: Limit, as_json: bool) -> None:
    if as_json:
        json_output.print_json(json_output.limit_fields(limit))
        return
    from localconc.cli.words import describe_limit

    print(f"{done} {describe_limit(limit)}")


def _ask(question: str, yes: bool) -> None:
    """Ask on a terminal, and only there, whether to go on.

    Raises:
        CommandError: better not.
    """
    if yes or not sys.stdin.isatty():
        return
    asked_on = sys.stderr if sys.stderr.isatty() else sys.stdout
    print(f"{question} [y/N] ", end="", file=asked_on, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=asked_on)
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was changed")
