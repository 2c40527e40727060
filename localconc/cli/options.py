"""The arguments and options that commands have in common, and reading what was typed for them."""

from __future__ import annotations

import math
import re
from typing import Annotated

import typer

from localconc.cli.completion import complete_name, complete_names
from localconc.cli.faults import WrongUsage
from localconc.cli.rate_text import parse_rate

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the limit.", autocompletion=complete_name, show_default=False)
]
Names = Annotated[
    str,
    typer.Argument(
        metavar="NAME[,NAME...]",
        help="Names of the limits, with commas between them; \\, is a comma in a name.",
        autocompletion=complete_names,
        show_default=False,
    ),
]
Output = Annotated[
    str, typer.Option("--output", "-o", metavar="FORMAT", help="text, or json for jq and other programs.")
]
Limit = Annotated[
    str | None, typer.Option("--limit", "-l", metavar="N", help="How many slots; 0 pauses.", show_default=False)
]
Decay = Annotated[
    str | None,
    typer.Option("--slot-decay-per-second", metavar="R", help="Slots that drain each second.", show_default=False),
]
Rate = Annotated[
    str | None,
    typer.Option("--rate", metavar="RATE", help="The same in words: 5/second, 100/minute, 1/day.", show_default=False),
]
ActiveSlots = Annotated[
    str | None,
    typer.Option("--active-slots", metavar="N", help="Slots in use that no process owns.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Occupy = Annotated[str, typer.Option("--occupy", metavar="N", help="How many slots of each limit.")]
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", metavar="SECONDS", help="How long to wait at most; 0 tries once.", show_default=False),
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a limit is missing or disabled.")]
ExitCode = Annotated[
    str, typer.Option("--exit-code", metavar="N", help="Exit status where the time is up before there are slots.")
]


def wants_json(output: str) -> bool:
    """Whether JSON was asked for."""
    if output.lower() not in ("text", "json"):
        raise WrongUsage(f"--output must be text or json, not {output!r}")
    return output.lower() == "json"


def whole(option: str, text: str, at_least: int = 0, at_most: int = 2**31 - 1) -> int:
    """A whole number in a range."""
    if re.fullmatch(r"\s*[-+]?[0-9]+\s*", text) is None:
        raise WrongUsage(f"{option} must be a whole number, not {text!r}")
    if len(text) > 20 or not at_least <= int(text) <= at_most:
        raise WrongUsage(f"{option} must be from {at_least} to {at_most}, but is {text.strip()}")
    return int(text)


def whole_or_none(option: str, text: str | None) -> int | None:
    """A whole number of 0 or more, if there is one."""
    return None if text is None else whole(option, text)


def seconds(option: str, text: str | None) -> float | None:
    """A number of seconds, 0 or more, if there is one."""
    return None if text is None else _number(option, text)


def decay(slot_decay_per_second: str | None, rate: str | None) -> float | None:
    """The decay that was asked for in either way, if it was."""
    if slot_decay_per_second is not None and rate is not None:
        raise WrongUsage("--rate and --slot-decay-per-second say the same: give one of them")
    if slot_decay_per_second is not None:
        return _number("--slot-decay-per-second", slot_decay_per_second)
    if rate is None:
        return None
    try:
        return parse_rate(rate)
    except ValueError as error:
        raise WrongUsage(f"--rate: {error}") from None


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise WrongUsage(f"{option} must be a number, not {text!r}") from None
    if not 0 <= number < math.inf:
        raise WrongUsage(f"{option} must be 0 or more, but is {text.strip()}")
    return number


def split_names(text: str) -> list[str]:
    """The names in a list with commas between them."""
    return [re.sub(r"\\,", ",", name) for name in re.split(r"(?<!\\),", text)]
