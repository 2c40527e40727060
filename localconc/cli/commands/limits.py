"""Commands on the definitions of limits."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from localconc import limits
from localconc.cli import options
from localconc.cli.engine_access import MAX_PAUSE_SECONDS, check_name, missing_names
from localconc.cli.engine_access import reset as reset_limit
from localconc.cli.errors import CommandError, WrongUsage, refused_arguments
from localconc.cli.names import chosen, complete_file, find, naming
from localconc.cli.output import json
from localconc.cli.output.text import clock_time, counted, describe_limit, literal, span
from localconc.cli.snapshot import deadlocks_with, take_snapshot
from localconc.errors import LimitExistsError

if TYPE_CHECKING:
    from localconc.limits import Limit

# ---- showing ---------------------------------------------------------------------------------------------------------


@click.command(cls=options.Command, examples=("ls", "ls gpu api", "ls -o json | jq '.[] | select(.waiters > 0).name'"))
@options.chosen_names
@options.output
def ls(names: tuple[str, ...], as_json: bool) -> None:
    """List limits: slots in use, waiters, decay, age."""
    snapshot = chosen(take_snapshot(), names)
    if as_json:
        json.print_json([json.listed_object(status, snapshot) for status in snapshot.limits])
        return
    from localconc.cli.output import tables

    tables.print_list(snapshot)


@click.command(cls=options.Command, examples=("inspect gpu", "inspect gpu -o json | jq '.holders[].pid'"))
@options.name
@options.output
@click.option("--file", "-f", metavar="FILE", help="Write it there.", shell_complete=complete_file)
def inspect(name: str, as_json: bool, file: str | None) -> None:
    """Show a limit, its holders and its waiters."""
    if file is not None and not as_json:
        raise WrongUsage("--file writes JSON: give --output json as well")
    snapshot = take_snapshot()
    status = find(snapshot, name)
    circles = None if snapshot.untold else deadlocks_with(status.name)
    if as_json:
        found = {**json.inspected_object(status, snapshot), "deadlocks": circles}
        json.print_json(found, None if file is None else Path(file))
        return
    from localconc.cli.output import tables

    tables.print_inspection(status, snapshot)
    for circle in circles or ():
        click.echo(literal(f"Deadlock: {circle}. End one of these processes, or let it release what it holds."))


# ---- making and changing ---------------------------------------------------------------------------------------------


@click.command(cls=options.Command, examples=("create gpu --limit 2", "create api --limit 10 --rate 100/minute"))
@options.name
@options.limit
@options.slot_decay
@options.rate
@options.active_slots
@click.option("--disable", is_flag=True, help="Do not enforce it yet.")
@options.output
def create(
    name: str,
    limit: int | None,
    slot_decay_per_second: float | None,
    rate: float | None,
    active_slots: int | None,
    disable: bool,
    as_json: bool,
) -> None:
    """Make a limit."""
    decay = options.decay(slot_decay_per_second, rate) or 0.0
    wanted = _asked_for_slots("create", name, limit)
    try:
        with refused_arguments():
            created = limits.create_limit(
                name, wanted, active=not disable, active_slots=active_slots or 0, slot_decay_per_second=decay
            )
    except LimitExistsError:
        raise CommandError(f"There is a limit {name!r} already. Change it with localconc update.") from None
    _show_result("Created", created, as_json)


@click.command(cls=options.Command, examples=("ensure gpu --limit 2", "ensure api --limit 10 --rate 100/minute"))
@options.name
@options.limit
@options.slot_decay
@options.rate
@click.option("--disable", is_flag=True, help="Do not enforce it.")
@options.output
def ensure(
    name: str, limit: int | None, slot_decay_per_second: float | None, rate: float | None, disable: bool, as_json: bool
) -> None:
    """Make a limit, or change it to be just like this. For scripts that run more than once.

    What is left out is as create leaves it: no decay, enforced. Held slots stay held.
    """
    decay = options.decay(slot_decay_per_second, rate) or 0.0
    wanted = _asked_for_slots("ensure", name, limit)
    with refused_arguments():
        check_name(name)
        before = None if name in missing_names([name]) else limits.read_limit(name)
        ensured = limits.ensure_limit(name, wanted, active=not disable, slot_decay_per_second=decay)
    done = "Created" if before is None else "Unchanged" if before.updated == ensured.updated else "Updated"
    if as_json:
        json.print_json({"done": done.lower(), **json.limit_object(ensured)})
    else:
        _show_result(done, ensured, as_json)


@click.command(cls=options.Command, examples=("update gpu --limit 4", "update api --rate 5/second --name web-api"))
@options.name
@options.limit
@options.slot_decay
@options.rate
@options.active_slots
@click.option("--enable", is_flag=True, help="Enforce it.")
@click.option("--disable", is_flag=True, help="Do not enforce it.")
@click.option("new_name", "--name", metavar="NEW", help="A new name.")
@options.output
def update(
    name: str,
    limit: int | None,
    slot_decay_per_second: float | None,
    rate: float | None,
    active_slots: int | None,
    enable: bool,
    disable: bool,
    new_name: str | None,
    as_json: bool,
) -> None:
    """Change a limit. Waiting calls are re-evaluated against the new definition."""
    if enable and disable:
        raise WrongUsage("Use --enable or --disable, not both")
    decay = options.decay(slot_decay_per_second, rate)
    active = True if enable else False if disable else None
    if (limit, decay, active_slots, active, new_name) == (None,) * 5:
        raise WrongUsage("Nothing to change: give --limit, --rate, --active-slots, --enable, --disable or --name")
    with naming(name), refused_arguments():
        updated = limits.update_limit(
            name, name=new_name, limit=limit, active=active, active_slots=active_slots, slot_decay_per_second=decay
        )
    _show_result("Updated", updated, as_json)


@click.command(cls=options.Command, examples=("enable gpu",))
@options.name
@options.output
def enable(name: str, as_json: bool) -> None:
    """Enforce a limit again."""
    with naming(name):
        _show_result("Enabled", limits.update_limit(name, active=True), as_json)


@click.command(cls=options.Command, examples=("disable gpu",))
@options.name
@options.output
def disable(name: str, as_json: bool) -> None:
    """Stop enforcing a limit; its waiters go ahead."""
    with naming(name):
        _show_result("Disabled", limits.update_limit(name, active=False), as_json)


def _read_pause(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    seconds = options.read_seconds(ctx, param, value)
    if seconds is not None and not 0 < seconds <= MAX_PAUSE_SECONDS:
        raise WrongUsage(f"{param.metavar} must be above 0 and at most 30 days, but is {value!r}")
    return seconds


@click.command(cls=options.Command, examples=("pause api 30s", "pause api 5m"))
@options.name
@click.argument(
    "seconds",
    cls=options.Argument,
    metavar="TIME",
    callback=_read_pause,
    help="How long, such as 30, 30s or 5m; at most 30 days.",
)
@options.output
def pause(name: str, seconds: float, as_json: bool) -> None:
    """Admit no request for some time. Holders keep their slots, waiters their places.

    Of two pauses, the one that ends later counts.
    """
    with naming(name), refused_arguments():
        paused = limits.pause_limit(name, seconds)
    if as_json or paused.paused_until is None:
        _show_result("Paused", paused, as_json)
        return
    end, now = paused.paused_until.timestamp(), time.time()
    done = f"Paused {paused.name!r} until {clock_time(end)}, for {span(end - now)}"
    if end > now + seconds:
        done += ": it was paused already, and of two pauses the later end counts"
    print(done if paused.active else f"{done}. It is disabled: until it is enabled, it admits every request")


@click.command(cls=options.Command, examples=("resume api",))
@options.name
@options.output
def resume(name: str, as_json: bool) -> None:
    """End a pause at once."""
    with naming(name):
        before = limits.read_limit(name)
        resumed = limits.resume_limit(name)
    if as_json or before.paused_until is not None:
        _show_result("Resumed", resumed, as_json)
        return
    remedy = "" if resumed.limit else f". Raise it with localconc update {shlex.quote(resumed.name)} --limit N"
    print(f"There was no pause to end. {describe_limit(resumed)}{remedy}")


@click.command(cls=options.Command, examples=("delete gpu", "delete gpu --yes"))
@options.name
@options.yes
@options.output
def delete(name: str, yes: bool, as_json: bool) -> None:
    """Delete a limit. Asks first, on a terminal."""
    with naming(name):
        found = limits.read_limit(name)
        _ask(f"Delete the limit {found.name!r}?", yes)
        limits.delete_limit(found.id)
    _show_result("Deleted", found, as_json)


@click.command(cls=options.Command, examples=("reset gpu --yes",))
@options.name
@options.yes
@options.output
def reset(name: str, yes: bool, as_json: bool) -> None:
    """Forget every holder of a limit; waiters get its slots then. Asks first, on a terminal.

    Names the holders that it forgot: their commands still run.
    """
    with naming(name):
        found = limits.read_limit(name)
        _ask(f"Discard the {found.active_slots} held slot(s) of {found.name!r}? The holders keep running.", yes)
        forgotten = reset_limit(found.id)
        changed = limits.read_limit(found.id)
    if as_json:
        processes = [
            {"pid": each.pid, "command": each.command, "label": each.label, "slots": each.slots} for each in forgotten
        ]
        json.print_json({**json.limit_object(changed), "forgotten": processes})
        return
    print(f"Reset {changed.name!r}: {counted(changed.limit, 'slot')}")
    for each in forgotten:
        label = f" {literal(each.label)!r}" if each.label else ""
        print(f"Forgot pid {each.pid} ({literal(each.command)}){label}, {counted(each.slots, 'slot')}; it still runs")
    if changed.active_slots:
        print(f"Waiters have got {counted(changed.active_slots, 'slot')} since")


def _asked_for_slots(command: str, name: str, limit: int | None) -> int:
    if limit is None:
        raise WrongUsage(f"How many slots? Give --limit N: localconc {command} {name} --limit 4")
    return limit


def _show_result(done: str, limit: Limit, as_json: bool) -> None:
    if as_json:
        json.print_json(json.limit_object(limit))
        return
    print(f"{done} {describe_limit(limit)}")


def _ask(question: str, yes: bool) -> None:
    """Ask on a terminal, and only there, whether to go on.

    Raises:
        CommandError: the answer is not yes.
    """
    if yes or not sys.stdin.isatty():
        return
    asked_on = sys.stderr if sys.stderr.isatty() else sys.stdout
    try:
        print(f"{question} [y/N] ", end="", file=asked_on, flush=True)
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print(file=asked_on)
        raise
    if not answer.endswith("\n"):
        print(file=asked_on)
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was changed")
