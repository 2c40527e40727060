"""The command that says whether all is well with the home, and puts it in order."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from localconc.cli import json_output, options
from localconc.cli.faults import FAILED, literal, say
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from localconc._engine.examination import Finding

_MARKS = {"well": "ok", "note": "note", "wrong": "WRONG"}
_COLOURS = {"well": "32", "note": "33", "wrong": "31;1"}


def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Do what is safe about what is wrong.")] = False,
    output: options.Output = "text",
) -> int:
    """Say whether all is well: where the database is, on what, whose, whether it is sound, and who uses it.

    Looking changes nothing. The exit status is 1 when something is wrong.
    """
    as_json = options.wants_json(output)
    from localconc import limits
    from localconc._engine.examination import examine

    home = limits.home()
    findings = examine(home)
    if repair:
        _repair(findings)
        findings = examine(home)
    wrong = any(finding.state == "wrong" for finding in findings)
    if as_json:
        json_output.print_json({"well": not wrong, "findings": [_object(finding) for finding in findings]})
    else:
        _print(findings, wrong)
    return FAILED if wrong else 0


def _repair(findings: list[Finding]) -> None:
    from localconc._engine import homes

    repairs = {finding.repair: finding for finding in findings if finding.repair is not None}
    for put_in_order, finding in repairs.items():
        try:
            put_in_order(homes.current())
            say(f"repaired: {finding.text}")
        except (LocalconcError, OSError) as error:
            say(f"not repaired: {finding.text} {error}")


def _object(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "state": finding.state, "text": finding.text, "remedy": finding.remedy}


def _print(findings: list[Finding], wrong: bool) -> None:
    coloured = sys.stdout.isatty()
    for finding in findings:
        mark = f"{_MARKS[finding.state]:<5}"
        if coloured:
            mark = f"\x1b[{_COLOURS[finding.state]}m{mark}\x1b[0m"
        print(f"{mark}  {finding.check:<11}  {literal(finding.text)}")
        if finding.remedy:
            print(f"{'':<20}{literal(finding.remedy)}")
    print("Something is wrong." if wrong else "All is well.")
