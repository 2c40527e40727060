"""The command that examines the home."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from localconc.cli import engine_access, options
from localconc.cli.errors import FAILED
from localconc.cli.output import json
from localconc.cli.output.text import literal, say
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from localconc.cli.engine_access import Finding

#: How a state is marked, and in which style.
_MARKS = {"well": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("WRONG", "bold red")}


@click.command(cls=options.Command, examples=("doctor", "doctor --repair"))
@click.option("--repair", is_flag=True, help="Do what is safe about what is wrong.")
@options.output
def doctor(repair: bool, as_json: bool) -> int:
    """Say whether all is well, and what to do if it is not.

    Looks at the place of the database, its filesystem, its permissions, its content and its processes; or at the server
    that keeps the limits. Looking changes nothing. The exit status is 1 when something is wrong.
    """
    if repair:
        engine_access.check_can_repair()
    findings = engine_access.examine()
    if repair:
        tried = _repair(findings)
        findings = engine_access.examine()
        _tell_of_repairs(tried, findings)
    wrong = any(finding.state == "wrong" for finding in findings)
    if as_json:
        json.print_json({"well": not wrong, "findings": [_object(finding) for finding in findings]})
    else:
        _print(findings, wrong)
    return FAILED if wrong else 0


def _repair(findings: list[Finding]) -> list[tuple[Finding, str]]:
    """Carry out each repair once; return what each was to repair, and why it failed, if it did."""
    repairs = {finding.repair: finding for finding in findings if finding.repair is not None}
    tried = []
    for put_in_order, finding in repairs.items():
        trouble = ""
        try:
            engine_access.repair(put_in_order)
        except (LocalconcError, OSError) as error:
            trouble = f" {error}"
        tried.append((finding, trouble))
    return tried


def _tell_of_repairs(tried: list[tuple[Finding, str]], left: list[Finding]) -> None:
    still_so = {finding.text for finding in left}
    for finding, trouble in tried:
        repaired = not trouble and finding.text not in still_so
        say(f"{'repaired' if repaired else 'not repaired'}: {finding.text}{trouble}")


def _object(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "state": finding.state, "text": finding.text, "remedy": finding.remedy}


def _print(findings: list[Finding], wrong: bool) -> None:
    from rich.text import Text

    from localconc.cli.output.tables import console

    screen = console()
    for finding in findings:
        mark, style = _MARKS[finding.state]
        line = Text.assemble((f"{mark:<5}", style), f"  {finding.check:<11}  {literal(finding.text)}")
        if finding.remedy:
            line.append(f"\n{'':<20}{literal(finding.remedy)}")
        screen.print(line, soft_wrap=True)
    screen.print("Something is wrong." if wrong else "All is well.")
