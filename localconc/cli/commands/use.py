"""Commands that acquire slots."""

from __future__ import annotations

import logging
import shlex
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from localconc.cli import child, engine_access, options, slot_environment
from localconc.cli.errors import INTERRUPTED, CommandError, WrongUsage, refused_arguments
from localconc.cli.names import complete_file, suggestion
from localconc.cli.output.status_line import telling_of_the_wait
from localconc.cli.snapshot import take_snapshot
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from localconc.sync import concurrency, rate_limit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from localconc.cli.snapshot import LimitStatus


class _Ended(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number


class _Run(options.Command):
    """`run`, whose own arguments end at the dashes: what comes after them is the command, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, command = args, []
        if "--" in args:
            dashes = args.index("--")
            own, command = args[:dashes], args[dashes + 1 :]
            if not own and command[1:2] == ["--"]:  # `run -- NAME -- COMMAND`, for a name that begins with a dash
                own, command = args[: dashes + 2], command[2:]
        super().parse_args(ctx, own)
        ctx.params["command"] = (*(ctx.params.get("command") or ()), *command)
        return []


@click.command(
    cls=_Run,
    examples=(
        "run gpu -- python train.py",
        "run db,api --occupy 2 --timeout 2m -- make load",
        "run ci --limit 4 -- make",
        "run gpu --slot-env CUDA_VISIBLE_DEVICES -- python train.py",
    ),
)
@options.names
@click.argument(
    "command",
    cls=options.Argument,
    metavar="-- COMMAND [ARG...]",
    nargs=-1,
    help="What to run.",
    shell_complete=complete_file,
)
@options.occupy
@options.limit_if_missing
@options.slot_decay
@options.rate
@options.timeout
@options.label
@click.option("--slot-env", metavar="NAME", multiple=True, help="Tell the command in this variable which slots it has.")
@options.allow_missing
@options.strict
@options.exit_code
def run(
    names: list[str],
    command: tuple[str, ...],
    label: str | None,
    slot_env: tuple[str, ...],
    exit_code: int,
    **asked: Any,
) -> int:
    """Run a command while holding slots, and exit as it does.

    Waits in the queue for the slots first. Signals are passed on to the command. Its slots come back when it ends. If
    localconc run itself is killed, the slots stay taken until the command ends, so the limit still counts it.

    The command finds the numbers of its slots, from 0, in LOCALCONC_SLOT. With --slot-env, another variable holds them,
    too; if it holds a list already, such as CUDA_VISIBLE_DEVICES=2,3, it gets the entries with these numbers.

    The exit status is the command's (128 + n if signal n ended it); 124 or --exit-code if the time is up, 127 for a
    command that does not exist, 126 for one that can't be run, 130 for Ctrl-C while waiting, 1 if there is no such
    limit.
    """
    words = list(command)
    if not names:
        raise WrongUsage(f"Which limit? localconc run NAME -- {shlex.join(words) if words else 'COMMAND'}")
    if not words:
        raise WrongUsage(f"Which command? localconc run {','.join(names)} -- COMMAND")
    slot_environment.check(slot_env, names)
    call = _call(names, **asked)
    if label is not None:
        call["label"] = _harmless(label)
    with ExitStack() as holding:
        with _waiting(call, exit_code):
            with refused_arguments():
                block = concurrency(**call)
            child.check_exists(words)
            _check_limits_exist(call)
            with _refusing_to_go_without_limits(call):
                occupancy = holding.enter_context(block)
        environment = slot_environment.with_numbers(occupancy, slot_env)
        descriptor = engine_access.descriptor_to_hand_on()
        if descriptor is None:
            return child.run(words, None, lambda pid: None, environment)
        text = _harmless(" ".join(words))[:200]
        return child.run(words, descriptor, lambda pid: engine_access.become_command(pid, text), environment)


@click.command(
    cls=options.Command, examples=("rate api --limit 10 --rate 100/minute", 'rate api --timeout 30s && curl "$url"')
)
@options.names
@options.occupy
@options.limit_if_missing
@options.slot_decay
@options.rate
@options.timeout
@options.allow_missing
@options.strict
@options.exit_code
def rate(names: list[str], exit_code: int, **asked: Any) -> None:
    """Wait until a rate limit admits one more, and return.

    For loops in a shell. No command releases the slots: they drain by themselves.
    """
    if not names:
        raise WrongUsage("Which limit? localconc rate NAME")
    call = _call(names, **asked)
    with _waiting(call, exit_code, needs_decay=True), refused_arguments():
        _check_limits_exist(call)
        with _refusing_to_go_without_limits(call):
            rate_limit(**call)


def _call(
    names: list[str],
    *,
    occupy: int,
    limit: int | None,
    slot_decay_per_second: float | None,
    rate: float | None,
    timeout: float | None,
    allow_missing: bool,
    strict: bool,
) -> dict[str, Any]:
    """Build the arguments of the library's call; `strict` is absent if the environment is to decide.

    A misspelt name makes no limit: only --limit does.
    """
    if strict and allow_missing:
        raise WrongUsage("Use --strict or --allow-missing, not both")
    with refused_arguments():
        engine_access.check_names(names)
    call = {
        "names": names,
        "occupy": occupy,
        "timeout_seconds": timeout,
        "create_if_missing": limit is not None,
        "limit": limit,
        "slot_decay_per_second": options.decay(slot_decay_per_second, rate),
    }
    if strict or allow_missing:
        call["strict"] = strict
    return call


def _check_limits_exist(call: dict[str, Any]) -> None:
    """Refuse to go ahead without a limit, unless --limit makes it or --allow-missing says so.

    Raises:
        CommandError: one of the limits is not defined.
    """
    if _may_be_missing(call) or engine_access.limits_are_off():
        return
    missing = engine_access.missing_names(call["names"])
    if missing:
        raise _without(missing)


@contextmanager
def _refusing_to_go_without_limits(call: dict[str, Any]) -> Iterator[None]:
    """Refuse a call whose limits were deleted or renamed while it waited in the block, as `_check_limits_exist` does.

    The library goes ahead without them and logs a warning. The refusal takes the place of that warning.

    Raises:
        CommandError: the call went ahead without one of its limits.
    """
    gone: dict[str, bool] = {}

    def keep_back(record: logging.LogRecord) -> bool:
        if getattr(record, "localconc_kind", None) != "not configured":
            return True
        gone[getattr(record, "localconc_limit", "")] = False
        return False

    if _may_be_missing(call):
        yield
        return
    logger = logging.getLogger("localconc")
    logger.addFilter(keep_back)
    try:
        yield
    finally:
        logger.removeFilter(keep_back)
    if gone:
        raise _without({**gone, **engine_access.missing_names(gone)})


def _may_be_missing(call: dict[str, Any]) -> bool:
    return call["limit"] is not None or call.get("strict") is False


def _without(missing: dict[str, bool]) -> CommandError:
    """Build the refusal for missing limits (False) and placeholders (True)."""
    what = " ".join(_lack(name, is_placeholder) for name, is_placeholder in missing.items())
    it, one = ("it", "one") if len(missing) == 1 else ("them", "them")
    return CommandError(f"{what} --limit N makes {it}, --allow-missing goes ahead without {one}")


def _lack(name: str, is_placeholder: bool) -> str:
    if is_placeholder:
        return f"The limit {name!r} is not set, so it limits nothing."
    ending = suggestion(name)
    return f"There is no limit {name!r}{ending if ending.startswith(';') else '.'}"


def _harmless(text: str) -> str:
    """Replace what is not Unicode in an argument, as the system passed it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# ---- waiting ---------------------------------------------------------------------------------------------------------


@contextmanager
def _waiting(call: dict[str, Any], timed_out: int, *, needs_decay: bool = False) -> Iterator[None]:
    """Wait for the slots of a call in the block; if the wait ends without them, end the command with its status."""
    try:
        with _signals_withdraw(), telling_of_the_wait(call["names"]):
            yield
    except AcquireConcurrencySlotTimeoutError as error:
        raise CommandError(str(error), timed_out) from None
    except ConcurrencySlotAcquisitionError as error:
        raise CommandError(_refusal(call, needs_decay=needs_decay) or str(error)) from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    except _Ended as end:
        raise click.exceptions.Exit(end.status) from None


@contextmanager
def _signals_withdraw() -> Iterator[None]:
    """Let this process leave the queue before it ends, if a signal asks it to end."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


# ---- refusals --------------------------------------------------------------------------------------------------------


def _refusal(call: dict[str, Any], *, needs_decay: bool) -> str:
    """Say in the words of the command line why slots were refused; "" if the library's own words say it as well."""
    limits = {status.name: status for status in take_snapshot().limits}
    for name in call["names"]:
        status = limits.get(name)
        if status is None or not status.configured:
            reason = _missing(name, call, needs_decay=needs_decay)
        else:
            reason = _unfit(status, call, needs_decay=needs_decay)
        if reason:
            return reason
    return ""


def _missing(name: str, call: dict[str, Any], *, needs_decay: bool) -> str:
    if call["limit"] is not None and needs_decay and not call["slot_decay_per_second"]:
        return f"The limit {name!r} needs a decay to limit a rate: give --rate as well, such as --rate 100/minute"
    return ""


def _unfit(status: LimitStatus, call: dict[str, Any], *, needs_decay: bool) -> str:
    if not status.active:
        is_strict = call.get("strict", engine_access.is_strict_by_default())
        way_out = "leave out --strict" if call.get("strict") else "unset LOCALCONC_STRICT"
        remedy = f"enforce it with localconc enable {shlex.quote(status.name)}, or {way_out}"
        return f"The limit {status.name!r} is disabled: {remedy}" if is_strict else ""
    if needs_decay and not status.slot_decay_per_second:
        remedy = f"give it one, such as localconc update {shlex.quote(status.name)} --rate 100/minute"
        return f"The limit {status.name!r} has no decay, so it limits no rate: {remedy}, or use localconc run"
    return ""
