"""The command line on a real terminal: questions, the line while waiting, the live view, completion."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from localconc import create_limit, delete_limit, read_limits, read_waiters, update_limit
from localconc.sync import concurrency
from tests.kit.command_line import COMMAND, PATIENCE_SECONDS, holding, localconc, running, until
from tests.kit.systems import needs_fork

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

pytestmark = needs_fork  # pexpect forks

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


class Terminal:
    """A terminal with a command on it, and what is on its screen."""

    def __init__(self, command: list[str], columns: int, rows: int, environment: dict[str, str]) -> None:
        self.child: Any = pexpect.spawn(
            command[0],
            command[1:],
            dimensions=(rows, columns),
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            env={**_without_size(), "TERM": "xterm-256color", **environment},
        )
        self.screen: Any = pyte.Screen(columns, rows)
        self._stream: Any = pyte.Stream(self.screen)
        self.raw = ""

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def read(self, seconds: float = 0.05) -> bool:
        """Take in what was written; False at the end."""
        try:
            new = self.child.read_nonblocking(65536, seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += new
        self._stream.feed(new)
        return True

    def shows(self, pattern: str) -> str:
        """Wait until something is on the screen; returns the screen."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, self.text):
            assert self.read() or re.search(pattern, self.text), f"ended without {pattern!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {pattern!r} on the screen:\n{self.text}"
        return self.text

    def end(self) -> int:
        """Take in all that is still written; returns the exit status, 128 + n for a signal."""
        while self.read(PATIENCE_SECONDS):
            pass
        self.child.close()
        return 128 + self.child.signalstatus if self.child.signalstatus else int(self.child.exitstatus)


def _without_size() -> dict[str, str]:
    """The environment, without what would tell another size than the terminal's own."""
    return {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}


@contextmanager
def terminal(*arguments: str, columns: int = 100, rows: int = 24, **options: Any) -> Iterator[Terminal]:
    opened = Terminal(options.pop("command", [*COMMAND, *arguments]), columns, rows, options.pop("environment", {}))
    try:
        yield opened
    finally:
        opened.child.close(force=True)


# ---- questions -------------------------------------------------------------------------------------------------------


def test_delete_asks_and_does_so_after_a_yes() -> None:
    create_limit("[red]", 1)
    with terminal("delete", "[red]") as screen:
        screen.shows(r"Delete the limit '\[red\]'\? \[y/N\]")
        screen.child.sendline("y")
        assert screen.end() == 0
    assert read_limits() == []


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
def test_a_refused_question_changes_nothing_and_exits_with_1(answer: str) -> None:
    create_limit("gpu", 1)
    with terminal("delete", "gpu") as screen:
        screen.shows(r"\[y/N\]")
        screen.child.send(answer)
        assert screen.end() == 1
    assert len(read_limits()) == 1


def test_an_interrupted_question_changes_nothing() -> None:
    create_limit("gpu", 1)
    with terminal("reset", "gpu") as screen:
        screen.shows(r"\[y/N\]")
        screen.child.sendintr()
        assert screen.end() == 130
        assert screen.raw.endswith("^C\r\n")  # so that the shell's prompt gets a line of its own


def test_yes_does_not_ask() -> None:
    create_limit("gpu", 1)
    with terminal("delete", "gpu", "--yes") as screen:
        assert screen.end() == 0
        assert "[y/N]" not in screen.raw


# ---- the line while waiting ------------------------------------------------------------------------------------------


def test_a_warning_stands_on_a_line_of_its_own_above_the_line() -> None:
    """A command that waits for its own parent is warned after a second, when the line is there already."""
    create_limit("gpu", 1)
    with terminal("run", "gpu", "--", *COMMAND, "run", "gpu", "--", "true", columns=400) as screen:
        screen.shows("(?m)^localconc: warning: a call has waited for a second for 'gpu'")
        screen.shows("(?m)^Waiting for 'gpu' [^w]*$")
        assert not re.search("Waiting for .* warning", screen.text)
        screen.child.sendintr()
        assert screen.end() == 130


@pytest.mark.parametrize("columns", [80, 200])
def test_the_line_tells_the_place_the_holder_and_the_estimate_and_is_gone_afterwards(columns: int) -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"):
        pass  # or there would be nothing to estimate from
    with holding("gpu") as holder, running("run", "gpu", "--", "true") as first:
        until(lambda: read_waiters("gpu"))
        with terminal("run", "gpu", "--", "echo", "my turn", columns=columns) as screen:
            text = screen.shows("Waiting for 'gpu'")
            assert "2nd in line" in text
            assert re.search(r"about [\d.]+s to go|longer than usual", text)
            assert "held by pid" in text
            assert len(text.splitlines()) == 1
            assert len(text) < columns
            if columns == 200:
                assert "(sh -c " in text
            first.process.kill()
            first.wait()
            screen.shows("1st in line")
            holder.end()
            assert screen.end() == 0
            assert screen.text == "my turn"


def test_ctrl_c_while_waiting_erases_the_line_and_leaves_the_queue() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"), terminal("run", "gpu", "--", "true") as screen:
        screen.shows("1st in line")
        screen.child.sendintr()
        assert screen.end() == 130
        assert screen.text.strip("^C") == ""
        assert read_waiters("gpu") == []


def test_the_line_tells_of_a_pause_and_of_drain() -> None:
    create_limit("gpu", 0)
    create_limit("api", 1, active_slots=1, slot_decay_per_second=1 / 60)
    with terminal("run", "gpu", "--", "true") as screen:
        screen.shows(r"paused \(limit 0\)")
        update_limit("gpu", limit=1)
        assert screen.end() == 0
    with terminal("rate", "api") as screen:
        assert "1/minute drain" in screen.shows(r"due at \d\d:\d\d:\d\d, \d+s to go")
        update_limit("api", active_slots=0)
        assert screen.end() == 0


def test_the_line_says_so_if_the_holder_takes_longer_than_usual() -> None:
    create_limit("gpu", 1)
    for _ in range(8):  # each takes the average nearer to a tenth of a second, the least that counts
        with concurrency("gpu"):
            pass
    with concurrency("gpu"), terminal("run", "gpu", "--", "true") as screen:
        screen.shows("1st in line, longer than usual, held by pid")
        screen.child.sendintr()
        screen.end()


def test_the_line_estimates_nothing_before_anybody_has_released_a_slot() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"), terminal("run", "gpu", "--", "true") as screen:
        screen.shows("1st in line, held by pid")
        screen.child.sendintr()
        screen.end()


def test_the_line_tells_of_slots_that_an_operator_occupied() -> None:
    create_limit("gpu", 2, active_slots=2)
    with terminal("run", "gpu", "--", "true") as screen:
        screen.shows("1st in line, 2 set by an operator")
        screen.child.sendintr()
        screen.end()


def test_the_line_tells_how_long_a_pause_lasts() -> None:
    create_limit("gpu", 1)
    assert localconc("pause", "gpu", "1h").returncode == 0
    with terminal("run", "gpu", "--", "true") as screen:
        screen.shows(r"1st in line, paused for (1h00m|59m\d\ds)")
        assert localconc("resume", "gpu").returncode == 0
        assert screen.end() == 0


def test_a_short_wait_shows_no_line() -> None:
    create_limit("gpu", 1)
    with terminal("run", "gpu", "--", "echo", "ran") as screen:
        assert screen.end() == 0
        assert "Waiting" not in screen.raw


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the command tells of its signals by sigwaitinfo")
def test_ctrl_c_reaches_the_command_exactly_once() -> None:
    create_limit("gpu", 1)
    telling = (
        "import signal\n"
        "numbers = [signal.SIGINT, signal.SIGUSR1]\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    info = signal.sigwaitinfo(numbers)\n"
        "    print('signal', info.si_signo, 'from', info.si_pid, flush=True)\n"
        "    if info.si_signo == signal.SIGUSR1: raise SystemExit(3)\n"
    )
    with terminal("run", "gpu", "--", sys.executable, "-c", telling) as screen:
        screen.shows("ready")
        screen.child.sendintr()
        screen.shows("signal 2 from 0")
        os.kill(screen.child.pid, signal.SIGUSR1)  # what is passed on, is passed on in order
        assert screen.end() == 3
        assert re.findall(r"signal \d+ from \d+", screen.raw) == [
            "signal 2 from 0",
            f"signal {signal.SIGUSR1} from {screen.child.pid}",
        ]


def test_ctrl_z_stops_the_command_and_run_and_fg_goes_on() -> None:
    create_limit("gpu", 1)
    shell = ["bash", "--norc", "--noediting", "-i"]
    with terminal(command=shell, environment={"PS1": "ready> "}) as screen:
        screen.shows("ready>")
        screen.child.sendline(f"{' '.join(COMMAND)} run gpu -- sh -c 'echo in; read line; echo got $line'")
        screen.shows(r"(?m)^in$")
        screen.child.send("\x1a")
        screen.shows("Stopped")
        screen.child.sendline("fg")
        screen.shows(r"(?s)Stopped.*fg")
        screen.child.sendline("it")
        screen.shows("got it")
        screen.child.sendline("exit")
        assert screen.end() == 0


# ---- watch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 120])
def test_watch_shows_bars_holders_and_waiters_live(columns: int) -> None:
    create_limit("gpu [red]", 2)
    create_limit("api", 10, slot_decay_per_second=100 / 60)
    with terminal("watch", columns=columns) as screen:
        text = screen.shows("2 limits, 0 holding")
        assert "100/minute" in text
        assert "gpu [red]  ░░░░░░░░░░ 0/2" in text
        with holding("gpu [red]", options=("--occupy", "2")), running("run", "gpu [red]", "--", "true") as waiter:
            text = screen.shows(rf"waits  1st  pid {waiter.pid}  1x  \d")
            assert "██████████ 2/2" in text
            assert re.search(r"holds  pid \d+  2x  \d.*sh -c", text)
            screen.shows(r"gpu \[red\].* 0\.\d ")  # grants a second
            assert all(len(line) <= columns for line in text.splitlines())
            waiter.close()
        screen.shows("2 limits, 0 holding, 0 waiting")
        screen.child.send("q")
        assert screen.end() == 0


@pytest.mark.parametrize("leave", ["q", "\x03", "SIGTERM"])
def test_leaving_watch_leaves_the_terminal_as_it_was(leave: str) -> None:
    create_limit("gpu", 2)
    with terminal(command=["bash", "-c", f"echo before; {' '.join(COMMAND)} watch; echo after; read line"]) as screen:
        attributes = termios.tcgetattr(screen.child.child_fd)
        screen.shows("1 limit, ")
        assert termios.tcgetattr(screen.child.child_fd) != attributes
        if leave == "SIGTERM":
            children = Path(f"/proc/{screen.child.pid}/task/{screen.child.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
        else:
            screen.child.send(leave)
        screen.shows("after")
        assert screen.raw.count("\x1b[?1049h") == screen.raw.count("\x1b[?1049l") == 1
        assert screen.raw.rindex("\x1b[?25h") > screen.raw.rindex("\x1b[?25l")
        assert termios.tcgetattr(screen.child.child_fd) == attributes
        screen.child.sendline("")
        assert screen.end() == 0


def test_watch_scrolls_where_there_are_more_limits_than_lines() -> None:
    for number in range(40):
        create_limit(f"limit-{number:02}", 2)
    with terminal("watch", rows=20) as screen:
        screen.shows(r"\.\.\. 23 more lines below")
        for _ in range(30):
            screen.child.send("j")
        screen.shows("limit-39")
        screen.child.send("q")
        assert screen.end() == 0


def test_watch_does_not_scroll_what_fits() -> None:
    create_limit("gpu", 2)
    with terminal("watch") as screen:
        screen.shows("1 limit, ")
        screen.child.send("jjjj")
        create_limit("api", 2)
        assert screen.shows("gpu(?s:.*)api|api(?s:.*)gpu").startswith("localconc  2 limits, ")
        screen.child.send("q")
        assert screen.end() == 0


def test_watch_shows_only_what_is_named() -> None:
    for name in ("gpu", "api", "db"):
        create_limit(name, 2)
    with terminal("watch", "gpu", "db") as screen:
        assert "api" not in screen.shows("2 limits, ")
        screen.child.send("q")
        assert screen.end() == 0


def test_watch_goes_on_when_what_it_shows_is_deleted() -> None:
    create_limit("gpu", 2)
    with terminal("watch", "gpu") as screen:
        screen.shows("1 limit, ")
        delete_limit("gpu")
        screen.shows("There is no limit 'gpu'")
        create_limit("gpu", 7)
        screen.shows("0/7")
        screen.child.send("q")
        assert screen.end() == 0


@pytest.mark.sweep
def test_watching_fifty_busy_limits_costs_less_than_two_percent_of_a_core() -> None:
    names = [f"limit-{number:02}" for number in range(50)]
    for name in names:
        create_limit(name, 4)
    with concurrency(names, occupy=3), terminal("watch", rows=60) as screen:
        screen.shows("50 limits, 50 holding")
        before, begun = _cpu_seconds(screen.child.pid), time.monotonic()
        while time.monotonic() < begun + 6:
            screen.read()
        spent = _cpu_seconds(screen.child.pid) - before
        screen.child.send("q")
        screen.end()
    assert spent / 6 < 0.02


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- tables and completion -------------------------------------------------------------------------------------------


def test_inspect_breaks_no_line_at_80_columns() -> None:
    identity = create_limit("gpu", 2).id
    with terminal("inspect", "gpu", columns=80) as screen:
        assert screen.end() == 0
        assert f"  Its id is {identity}" in screen.text.splitlines()
        assert all(line.startswith(("gpu ", "  ", "Holding: ", "Waiting: ")) for line in screen.text.splitlines())


def test_ls_keeps_room_for_the_names_beside_large_figures() -> None:
    create_limit("gpu", 2**31 - 1, active_slots=2**31 - 2, slot_decay_per_second=1000 / 3600)
    with terminal("ls", columns=80) as screen:
        assert screen.end() == 0
        assert re.search(r"(?m)^gpu +█+ 214748364\d/2147483647 ", screen.text)


@pytest.mark.parametrize("command", ["ls", "doctor"])
def test_there_are_colours_on_a_terminal_but_where_they_are_not_wanted(command: str) -> None:
    create_limit("gpu", 2)
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        with terminal(command, environment=environment) as screen:
            screen.end()
            assert ("\x1b[32m" in screen.raw) == coloured


def test_ls_fits_80_columns() -> None:
    create_limit("a-rather-long-name-of-a-limit-for-everything", 1000, slot_decay_per_second=1000 / 3600)
    with terminal("ls", columns=80) as screen:
        assert screen.end() == 0
        assert "1000/hour" in screen.text
        assert "enabled" in screen.text
        assert "a few seconds ago" in screen.text


@contextmanager
def bash(directory: Path) -> Iterator[Terminal]:
    """A bash that completes `localconc`."""
    program = directory / "bin" / "localconc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    environment = {"PS1": "ready> ", "PATH": f"{program.parent}:{os.environ['PATH']}", "TERM": "dumb"}
    with terminal(command=["bash", "--norc", "-i"], environment=environment) as screen:
        screen.shows("ready>")
        screen.child.sendline('eval "$(localconc completion bash)"; echo loaded')
        screen.shows("(?m)^loaded")
        yield screen
        screen.child.send("\x15exit\n")
        screen.end()


@needs_bash
def test_bash_completes_commands_and_names(tmp_path: Path) -> None:
    create_limit("database", 2)
    create_limit("data lake", 2)
    with bash(tmp_path) as screen:
        screen.child.send("localconc insp\t")
        screen.shows("localconc inspect$")
        screen.child.send("datab\t")
        screen.shows("localconc inspect database")
        screen.child.send("\x15localconc run other,datab\t")
        screen.shows("localconc run other,database")
        screen.child.send("\x15localconc ls data\\ \t-o json\n")
        screen.shows('"name": "data lake"')


@needs_bash
def test_bash_completes_files_where_a_file_is_meant(tmp_path: Path) -> None:
    create_limit("database", 2)
    (tmp_path / "figures.json").touch()
    with bash(tmp_path) as screen:
        screen.child.sendline(f"cd {tmp_path}; clear")
        for typed, completed in (
            ("import ./fig", "import ./figures.json"),
            ("export fig", "export figures.json"),
            ("timeline -o fig", "timeline -o figures.json"),
            ("inspect database -f fig", "inspect database -f figures.json"),
            ("run database -- cat -n fig", "run database -- cat -n figures.json"),
            ("run database --time", "run database --timeout"),
        ):
            screen.child.send(f"\x15localconc {typed}\t")
            screen.shows(f"localconc {re.escape(completed)}")
