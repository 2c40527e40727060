"""The command line: help, start-up, rates in words, and doing without the extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from localconc import create_limit
from localconc.cli.errors import WrongUsage
from localconc.cli.options import parse_rate, read_seconds
from localconc.cli.output.text import ordinal, rate_text, short_command, span
from localconc.cli.program import COMMANDS
from tests.kit.command_line import fails, localconc, ok


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    text = ok(command, "--help")
    assert "Example" in text
    assert f"  localconc {command}" in text


def test_without_a_command_there_is_help() -> None:
    assert all(f"  {command} " in ok() for command in ("run", "watch", "doctor"))


def test_the_version_is_the_packages() -> None:
    import localconc as package

    assert ok("--version") == f"localconc {package.__version__}\n"


def test_run_says_what_happens_when_it_is_killed() -> None:
    assert "is killed, the slots stay taken" in " ".join(ok("run", "--help").split())


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    import filelock
    import platformdirs

    import localconc as package

    for module in (package, filelock, platformdirs):
        directory = Path(str(module.__file__)).parent
        (tmp_path / directory.name).symlink_to(directory)
    result = subprocess.run(
        [sys.executable, "-S", "-m", "localconc", "ls"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "in a clone of localconc, run pip install '.[cli]'" in result.stderr


def test_an_interrupt_before_the_command_has_begun_is_one_too() -> None:
    interrupted = (
        "import sys\nfrom localconc.cli import main\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'localconc.cli.program': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\nsys.exit(main())"
    )
    result = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "")


def _loaded(*arguments: str) -> set[str]:
    """The modules that a command loads, beyond what its parser and filelock need anyway."""
    script = (
        "import json, sys\nimport click, filelock\nbefore = set(sys.modules)\n"
        "from localconc.cli import main\nsys.argv = ['localconc', *sys.argv[1:]]\n"
        "main()\nprint(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(result.stderr))


def test_a_command_loads_only_what_it_needs() -> None:
    create_limit("gpu", 2)
    assert not _loaded("ls", "-o", "json") & {"rich.console", "pydantic", "pendulum", "asyncio"}
    assert not _loaded("ls") & {"pydantic", "rich.live", "localconc.cli.commands.use"}
    assert not _loaded("run", "gpu", "--", "true") & {"rich", "pendulum", "asyncio", "localconc.cli.commands.limits"}


def test_every_command_is_summed_up_in_the_help_without_being_cut() -> None:
    summaries = ok(env={**os.environ, "COLUMNS": "80"}).partition("Commands:")[2]
    assert all(f"  {command} " in summaries for command in COMMANDS)
    assert "..." not in summaries


@pytest.mark.parametrize(
    ("shell", "beginning"), [("bash", "_localconc_completion()"), ("zsh", "#compdef localconc"), ("fish", "function ")]
)
def test_the_completion_script_of_a_shell_is_printed(shell: str, beginning: str) -> None:
    assert ok("completion", shell).startswith(beginning)


def test_the_shells_that_can_complete_are_named() -> None:
    assert "'bash', 'zsh', 'fish'" in fails("completion", "csh", status=2)


def test_completing_where_there_is_no_store_makes_none(localconc_home_directory: Path) -> None:
    environment = {
        **os.environ,
        "_LOCALCONC_COMPLETE": "bash_complete",
        "COMP_WORDS": "localconc inspect ",
        "COMP_CWORD": "2",
    }
    assert localconc(env=environment).stdout.strip() == ""
    assert not localconc_home_directory.exists()


def _completed_in_bash(*words: str) -> list[str]:
    environment = {
        **os.environ,
        "_LOCALCONC_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["localconc", *words]),
        "COMP_CWORD": str(len(words)),
    }
    return [line.removeprefix("plain,") for line in localconc(env=environment).stdout.splitlines()]


def test_completing_offers_the_names_of_limits() -> None:
    create_limit("database", 2)
    assert _completed_in_bash("run", "other,da") == ["other,database"]


def test_completing_does_not_offer_a_name_twice_for_one_command() -> None:
    create_limit("data,base", 2)
    create_limit("gpu", 2)
    assert _completed_in_bash("run", "gpu,") == [r"gpu,data\\,base"]
    assert _completed_in_bash("run", r"data\\,base,") == [r"data\\,base,gpu"]


def test_completing_in_bash_offers_names_as_they_are_typed() -> None:
    create_limit("data lake", 2)
    create_limit("more $", 2)
    assert _completed_in_bash("inspect", "") == [r"data\ lake", r"more\ \$"]
    assert _completed_in_bash("run", "gpu,da") == [r"gpu,data\ lake"]
    assert _completed_in_bash("inspect", r"data\ l") == [r"data\ lake"]
    assert _completed_in_bash("inspect", '"data l') == ["data lake"]


@pytest.mark.parametrize(
    "text", ["", "fast", "5", "5/", "/second", "-5/second", "0/day", "1/fortnight", "1e3/s", "٣/s", "nan/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="100/minute"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["5/second", "100/minute", "1000/hour", "1/day", "1/second", "30/minute", "7/hour"])
def test_a_rate_in_words_comes_back_in_the_same_words(text: str) -> None:
    assert rate_text(parse_rate(text)) == text


@pytest.mark.parametrize(
    ("slots_per_second", "text"),
    [
        (0, ""),
        (1.0, "1/second"),
        (0.5, "30/minute"),
        (2.3456, "2.35/second"),
        (1e-6, "0.0864/day"),
        (1e9, "1000000000/second"),
        (4.9, "4.9/second"),
        (12.5, "12.5/second"),
        (75 / 60, "75/minute"),
    ],
)
def test_a_decay_is_said_in_the_handiest_unit(slots_per_second: float, text: str) -> None:
    assert rate_text(slots_per_second) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1.5", 1.5),
        ("1s", 1),
        ("500ms", 0.5),
        ("2m", 120),
        ("2m30s", 150),
        ("1h", 3600),
        ("1 day", 86400),
        ("5 MIN", 300),
    ],
)
def test_a_time_is_seconds_or_has_units(text: str, seconds: float) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "5 parsecs", "m", "1s and more", "1s2", "٣s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(WrongUsage, match="--timeout"):
        _seconds(text)


def _seconds(text: str) -> float | None:
    return read_seconds(click.Context(click.Command("run")), click.Option(["--timeout"]), text)


@pytest.mark.parametrize(
    ("command", "short"),
    [
        ("/venv/bin/python3 /venv/bin/localconc run gpu -- make", "localconc run gpu -- make"),
        ("/usr/bin/python3.11 -m http.server", "python3.11 -m http.server"),
        ("python train.py /data/x", "python train.py /data/x"),
        ("/usr/bin/make load", "make load"),
        ("", ""),
    ],
)
def test_a_command_is_shown_without_where_it_is_installed(command: str, short: str) -> None:
    assert short_command(command) == short


def test_spans_and_ordinals_read_well() -> None:
    assert [span(seconds) for seconds in (0, 0.44, 0.96, 12.4, 59.6, 192, 7500, 400_000)] == [
        "0.0s",
        "0.4s",
        "1s",
        "12s",
        "1m00s",
        "3m12s",
        "2h05m",
        "4d15h",
    ]
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
    )
