"""The parameters that commands have in common."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

from localconc.cli.errors import TIMED_OUT, WrongUsage
from localconc.cli.names import complete_name, complete_names
from localconc.cli.output.text import UNIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    _Reader = Callable[[click.Context, click.Parameter, "str | None"], Any]

_UNITS = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "hr": "hour", "d": "day"}
_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", re.ASCII | re.IGNORECASE)
_RATE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:/|per)\s*([a-z]+)\s*", re.ASCII | re.IGNORECASE)

# ---- commands and arguments with help --------------------------------------------------------------------------------


class Argument(click.Argument):
    """An argument that the help explains."""

    def __init__(self, declarations: Sequence[str], *, help: str, **options: Any) -> None:
        super().__init__(declarations, **options)
        self.explanation = help

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self.metavar or self.human_readable_name, self.explanation


class Command(click.Command):
    """A command whose help explains its arguments and ends with examples."""

    def __init__(self, name: str | None, *, examples: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(name, epilog=examples_text(*examples), context_settings={"show_default": True}, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # not every error of the parser says whose it is
            if isinstance(error, click.NoSuchOption) and re.fullmatch(r"-[\d.]", error.option_name):
                raise self._refused_number(error.option_name, ctx) from None
            raise

    def _refused_number(self, option: str, ctx: click.Context) -> click.UsageError:
        """Build the error for a number below 0, which looks like an option; in `run` it may be one of its command."""
        if any(parameter.name == "command" for parameter in self.params):
            return click.NoSuchOption(option, ctx=ctx)
        return click.UsageError(f"No option begins with {option!r}, and no number may be below 0", ctx)

    def get_short_help_str(self, limit: int = 45) -> str:
        return (self.help or "").partition(". ")[0].split("\n\n")[0].replace("\n", " ").rstrip(".") + "."

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        parameters = self.get_params(ctx)
        for title, kind in (("Arguments", click.Argument), ("Options", click.Option)):
            records = [record for one in parameters if isinstance(one, kind) and (record := one.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def examples_text(*examples: str) -> str:
    """Write the examples at the end of a help, each on its line."""
    lines = "\n".join(f"  localconc {example}" for example in examples)
    return f"\b\nExample{'s' if len(examples) > 1 else ''}:\n{lines}"


# ---- reading what was typed ------------------------------------------------------------------------------------------


def whole(at_least: int = 0, at_most: int = 2**31 - 1) -> _Reader:
    """Make a reader of whole numbers in a range."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
        if value is None:
            return None
        if re.fullmatch(r"\s*[-+]?[0-9]+\s*", value) is None:
            raise WrongUsage(f"{_option(param)} must be a whole number, not {value!r}")
        if len(value) > 20 or not at_least <= int(value) <= at_most:
            raise WrongUsage(f"{_option(param)} must be from {at_least} to {at_most}, but is {value.strip()}")
        return int(value)

    return read


def _read_number(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        raise WrongUsage(f"{_option(param)} must be a number, not {value!r}") from None
    if not math.isfinite(number):
        raise WrongUsage(f"{_option(param)} must be a finite number, not {value.strip()}")
    if number < 0:
        raise WrongUsage(f"{_option(param)} must be 0 or more, but is {value.strip()}")
    return number


def read_seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a span of time: a number of seconds, or one with units such as `500ms` or `2m30s`."""
    if value is None:
        return None
    pieces = _TIME.findall(value)
    units = [_unit_seconds(word) for _, word in pieces]
    if not pieces or None in units or _TIME.sub("", value).strip():
        try:
            return _read_number(ctx, param, value)
        except WrongUsage as error:
            raise WrongUsage(f"{error}: write for example 30, 1.5s, 500ms or 2m") from None
    seconds = sum(float(number) * (unit or 0.0) for (number, _), unit in zip(pieces, units, strict=True))
    return _read_number(ctx, param, str(seconds))


def _read_rate(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_rate(value)
    except ValueError as error:
        raise WrongUsage(f"{_option(param)}: {error}") from None


def _read_format(ctx: click.Context, param: click.Parameter, value: str) -> bool:
    if value.lower() not in ("text", "json"):
        raise WrongUsage(f"{_option(param)} must be text or json, not {value!r}")
    return value.lower() == "json"


def _split_names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str]:
    return [] if value is None else [re.sub(r"\\,", ",", name) for name in re.split(r"(?<!\\),", value)]


def _option(param: click.Parameter) -> str:
    return str(param.metavar) if isinstance(param, click.Argument) else max(param.opts, key=len)


def parse_rate(text: str) -> float:
    """Read slots a second from a rate such as `5/second`, `100/minute`, `1000/hour` or `1/day`.

    Raises:
        ValueError: it is not of that form, or not above 0.
    """
    match = _RATE.fullmatch(text)
    if match is not None:
        number, unit = float(match[1]), _unit_seconds(match[2])
        if unit is not None and unit >= 1 and 0 < number < math.inf:
            return number / unit
    raise ValueError(f"{text!r} is no rate: write for example 5/second, 100/minute, 1000/hour or 1/day, above 0")


def _unit_seconds(word: str) -> float | None:
    """Look up a unit of time; None if there is none of that name."""
    name = word.lower()
    return 0.001 if name == "ms" else UNIT_SECONDS.get(_UNITS.get(name, name.removesuffix("s")))


def decay(slot_decay_per_second: float | None, rate: float | None) -> float | None:
    """Choose the decay that was given in one of two ways; None if in neither."""
    if slot_decay_per_second is not None and rate is not None:
        raise WrongUsage("Use --rate or --slot-decay-per-second, not both")
    return rate if slot_decay_per_second is None else slot_decay_per_second


# ---- arguments and options in common ---------------------------------------------------------------------------------


def _argument(name: str, **options: Any) -> Callable[[Any], Any]:
    return click.argument(name, cls=Argument, **options)


name = _argument("name", metavar="NAME", help="Name of the limit.", shell_complete=complete_name)
chosen_names = _argument("names", metavar="[NAME]...", nargs=-1, help="Only these.", shell_complete=complete_name)
names = _argument(
    "names",
    metavar="NAME[,NAME...]",
    callback=_split_names,
    required=False,
    help="Names of the limits, with commas between them; \\, is a comma in a name.",
    shell_complete=complete_names,
)
output = click.option(
    "as_json",
    "--output",
    "-o",
    metavar="FORMAT",
    callback=_read_format,
    default="text",
    help="text, or json for jq and other programs.",
)
limit = click.option("--limit", "-l", metavar="N", callback=whole(), help="How many slots; 0 pauses.")
limit_if_missing = click.option(
    "--limit", "-l", metavar="N", callback=whole(), help="If there is no such limit, make it with this many slots."
)
slot_decay = click.option(
    "--slot-decay-per-second", metavar="R", callback=_read_number, help="Slots that drain each second."
)
rate = click.option(
    "--rate", metavar="RATE", callback=_read_rate, help="The same in words: 5/second, 100/minute, 1/day."
)
active_slots = click.option("--active-slots", metavar="N", callback=whole(), help="Slots in use that no process owns.")
yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
occupy = click.option("--occupy", metavar="N", callback=whole(1), default="1", help="How many slots of each limit.")
timeout = click.option(
    "--timeout",
    metavar="TIME",
    callback=read_seconds,
    help="How long to wait at most, such as 30, 500ms or 2m; 0 tries once.",
)
label = click.option("--label", metavar="TEXT", help="What inspect, watch and history show beside the command.")
allow_missing = click.option("--allow-missing", is_flag=True, help="Go ahead without a limit that does not exist.")
strict = click.option("--strict", is_flag=True, help="Fail if a limit is missing or disabled.")
exit_code = click.option(
    "--exit-code",
    metavar="N",
    callback=whole(0, 255),
    default=str(TIMED_OUT),
    help="Exit status if the time is up before there are slots.",
)
