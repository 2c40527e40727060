"""The command that says whether all is well with the home, and puts it in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from localconc.cli import json_output, options
from localconc.cli.faults import FAILED, literal, say
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from localconc._engine.examination import Finding

#: How a state is marked, and in which style.
_MARKS = {"well": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("WRONG", "bold red")}


def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Do what is safe about what is wrong.")] = False,
    output: options.Output = "text",
) -> int:
    """Say whether all is well, and what to do where it is not.

    Looks at where the database is, on what, whose, whether it is sound, and who uses it. Looking changes nothing. The
    exit status is 1 when something is wrong.
    """
    as_json = options.wants_json(output)
    from localconc import limits
    from localconc._engine.examination import examine
    from localconc._engine.home import is_on_a_server

    if is_on_a_server():
        return _examine_server(repair, as_json)
    home = limits.home()
    findings = examine(home)
    if repair:
        tried = _repair(findings)
        findings = examine(home)
        _tell_of_repairs(tried, findings)
    wrong = any(finding.state == "wrong" for finding in findings)
    if as_json:
        json_output.print_json({"well": not wrong, "findings": [_object(finding) for finding in findings]})
    else:
        _print(findings, wrong)
    return FAILED if wrong else 0


def _examine_server(repair: bool, as_json: bool) -> int:
    from localconc._engine import homes
    from localconc._engine.examination import Finding
    from localconc._prefect import doctor as server_doctor

    if repair:
        homes.machine("localconc doctor --repair")
    findings = [Finding(found.check, found.state, found.text, found.remedy) for found in server_doctor.examine()]
    wrong = any(finding.state == "wrong" for finding in findings)
    if as_json:
        json_output.print_json({"well": not wrong, "findings": [_object(finding) for finding in findings]})
    else:
        _print(findings, wrong)
    return FAILED if wrong else 0


def _repair(findings: list[Finding]) -> list[tuple[Finding, str]]:
    """Do each repair once; returns what it was to repair, and why that failed, if it did."""
    from localconc._engine import homes

    repairs = {finding.repair: finding for finding in findings if finding.repair is not None}
    tried = []
    for put_in_order, finding in repairs.items():
        trouble = ""
        try:
            put_in_order(homes.machine("localconc doctor --repair"))
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

    from localconc.cli.render import console

    screen = console()
    for finding in findings:
        mark, style = _MARKS[finding.state]
        line = Text.assemble((f"{mark:<5}", style), f"  {finding.check:<11}  {literal(finding.text)}")
        if finding.remedy:
            line.append(f"\n{'':<20}{literal(finding.remedy)}")
        screen.print(line, soft_wrap=True)
    screen.print("Something is wrong." if wrong else "All is well.")
