"""The command line: running commands while holding slots."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from localconc import create_limit, read_history, read_holders, read_limit, read_limits, read_waiters
from localconc._engine import registry
from localconc._engine.liveness.owner import living
from localconc.cli import child
from localconc.sync import concurrency, rate_limit
from tests.kit.command_line import (
    COMMAND,
    SAY_AND_READ,
    Running,
    as_json,
    fails,
    holding,
    localconc,
    ok,
    process_lives,
    running,
    until,
)
from tests.kit.processes import stop
from tests.kit.systems import needs_process_table, needs_watch


def test_the_exit_status_is_the_commands() -> None:
    create_limit("gpu", 1)
    assert localconc("run", "gpu", "--", "sh", "-c", "exit 7").returncode == 7


def test_a_command_ended_by_a_signal_gives_128_and_the_signal() -> None:
    create_limit("gpu", 1)
    assert localconc("run", "gpu", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_the_streams_are_the_commands_own() -> None:
    create_limit("gpu", 1)
    result = localconc("run", "gpu", "--", "sh", "-c", "cat; echo oops >&2", input="through\n")
    assert (result.stdout, result.stderr) == ("through\n", "oops\n")


def test_streams_that_are_closed_are_closed_for_the_command_too() -> None:
    create_limit("gpu", 1)
    script = "import os; os.write(2, repr([os.path.exists(f'/proc/self/fd/{n}') for n in (0, 1)]).encode())"
    line = 'exec "$@" <&- >&-'
    words = [*COMMAND, "run", "gpu", "--", sys.executable, "-c", script]
    result = subprocess.run(["sh", "-c", line, "sh", *words], stderr=subprocess.PIPE, check=False, timeout=30)
    assert (result.returncode, result.stderr) == (0, b"[False, False]")


def test_options_after_the_dashes_are_the_commands() -> None:
    create_limit("gpu", 1)
    assert ok("run", "gpu", "--", "echo", "--limit", "--", "-n") == "--limit -- -n\n"


def test_slots_are_held_while_the_command_runs_and_come_back() -> None:
    create_limit("gpu", 2)
    create_limit("db", 3)
    with holding("gpu", "db", options=("--occupy", "2")) as holder:
        assert [read_limit(name).active_slots for name in ("gpu", "db")] == [2, 2]
        assert holder.end() == 0
    assert [read_limit(name).active_slots for name in ("gpu", "db")] == [0, 0]


def test_a_limit_given_on_the_spot_is_made() -> None:
    ok("run", "gpu", "--limit", "3", "--rate", "60/minute", "--", "true")
    assert (read_limit("gpu").limit, read_limit("gpu").slot_decay_per_second) == (3, 1.0)


def test_a_command_that_does_not_exist_gives_127_without_waiting_for_slots() -> None:
    create_limit("gpu", 0)
    assert "'no-such-command'" in fails("run", "gpu", "--", "no-such-command", status=127)


def test_a_file_that_is_no_program_gives_126(tmp_path: Path) -> None:
    create_limit("gpu", 1)
    (tmp_path / "text").write_text("text")
    fails("run", "gpu", "--", str(tmp_path / "text"), status=126)
    assert read_limit("gpu").active_slots == 0


def test_a_script_without_an_interpreter_line_runs(tmp_path: Path) -> None:
    create_limit("gpu", 1)
    script = tmp_path / "script"
    script.write_text("echo hello $1\n")
    script.chmod(0o755)
    assert ok("run", "gpu", "--", str(script), "you") == "hello you\n"


def test_time_is_up_with_124_or_what_was_asked_for() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"):
        assert f"held by pid {os.getpid()}" in fails("run", "gpu", "--timeout", "0", "--", "true", status=124)
        fails("run", "gpu", "--timeout", "0.05", "--exit-code", "75", "--", "true", status=75)
    assert read_waiters("gpu") == []


@pytest.mark.parametrize("command", [("run", "databse", "--", "echo", "ran"), ("rate", "databse")])
def test_without_the_limit_nothing_runs_and_the_nearest_name_is_suggested(command: tuple[str, ...]) -> None:
    create_limit("database", 1)
    said = fails(*command, status=1)
    assert "There is no limit 'databse'; did you mean 'database'? --limit N makes it, --allow-missing" in said
    assert [limit.name for limit in read_limits()] == ["database"]


def test_no_command_waits_for_one_limit_while_another_is_missing() -> None:
    create_limit("gpu", 0)
    assert "no limit 'databse'" in fails("run", "gpu,databse", "--", "true", status=1)


def test_a_limit_that_only_a_program_named_limits_nothing_and_is_refused_too() -> None:
    with concurrency("gpu"):
        pass
    assert "'gpu' is not set" in fails("run", "gpu", "--", "true", status=1)


def test_without_the_limit_a_command_runs_if_that_is_allowed_and_one_line_warns_with_the_nearest_name() -> None:
    create_limit("database", 1)
    result = localconc("run", "databse", "--allow-missing", "--", "echo", "ran")
    assert (result.returncode, result.stdout) == (0, "ran\n")
    assert result.stderr.count("\n") == 1
    assert "did you mean 'database'?" in result.stderr
    assert [limit.name for limit in read_limits()] == ["database"]


def test_limits_that_are_switched_off_need_not_exist() -> None:
    assert ok("run", "gpu", "--", "echo", "ran", env={**os.environ, "LOCALCONC_DISABLED": "1"}) == "ran\n"


def test_to_allow_a_missing_limit_and_to_insist_on_it_exclude_each_other() -> None:
    fails("run", "gpu", "--strict", "--allow-missing", "--", "true", status=2)


def test_strict_does_nothing_without_the_limit_and_suggests_the_nearest() -> None:
    create_limit("database", 1)
    said = "no limit 'databse'; did you mean 'database'?"
    assert said in fails("run", "databse", "--strict", "--", "echo", "ran", status=1)
    assert said in fails("rate", "databse", "--strict", status=1)


def test_strict_does_not_run_on_a_disabled_limit_and_says_how_to_enable_it() -> None:
    create_limit("two words", 1, active=False)
    assert ok("run", "two words", "--", "echo", "ran") == "ran\n"
    said = fails("run", "two words", "--strict", "--", "echo", "ran", status=1)
    assert "localconc enable 'two words'" in said


def test_more_slots_than_the_limit_fail() -> None:
    create_limit("gpu", 1)
    fails("run", "gpu", "--occupy", "2", "--", "true", status=1)


def test_commas_separate_names_and_a_backslash_keeps_one() -> None:
    create_limit("a,b", 1)
    with holding("a\\,b") as holder:
        assert read_limit("a,b").active_slots == 1
        holder.end()


@pytest.mark.parametrize("command", [("run", "--", "sleep", "1"), ("run", "--limit", "1", "--", "sleep", "1")])
def test_a_command_without_a_limit_is_asked_which(command: tuple[str, ...]) -> None:
    assert "Which limit? localconc run NAME -- sleep 1" in fails(*command, status=2)


def test_a_name_that_begins_with_a_dash_stands_between_dashes() -> None:
    create_limit("-x", 1)
    assert ok("run", "--", "-x", "--", "echo", "ran", "--", "on") == "ran -- on\n"


def test_the_command_may_follow_the_name_without_dashes() -> None:
    create_limit("gpu", 1)
    assert ok("run", "gpu", "echo", "ran") == "ran\n"


@pytest.mark.parametrize("time", ["0.02", "20ms", "0.02s"])
def test_a_timeout_may_have_a_unit(time: str) -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"):
        assert "timed out after 0.02 second" in fails("run", "gpu", "--timeout", time, "--", "true", status=124)


def test_a_label_is_shown_wherever_the_command_is() -> None:
    create_limit("gpu", 1)
    with holding("gpu", options=("--label", "nightly training")) as holder:
        assert "nightly training" in ok("inspect", "gpu")
        assert "nightly training" in ok("watch")
        (held,) = as_json("inspect", "gpu")["holders"]
        assert held["label"] == read_holders("gpu")[0].label == "nightly training"
        with running("run", "gpu", "--label", "evaluation", "--", "true") as waiter:
            until(lambda: read_waiters("gpu"))
            assert as_json("inspect", "gpu")["waiters"][0]["label"] == "evaluation"
            waiter.close()
        holder.end()


def test_a_label_that_is_too_long_is_wrong_usage() -> None:
    create_limit("gpu", 1)
    fails("run", "gpu", "--label", "x" * 201, "--", "true", status=2)


def test_a_long_wait_without_a_terminal_says_what_it_waits_for_and_who_holds_it() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"), running("run", "gpu", "--", "true") as waiter:
        assert waiter.process.stderr is not None
        line = waiter.process.stderr.readline()  # after ten seconds
        assert line.startswith("localconc: ")
        assert "'gpu'" in line
        assert f"pid {os.getpid()}" in line
        waiter.close()


# ---- what may go wrong once the command runs -------------------------------------------------------------------------


def test_arguments_that_are_not_utf_8_reach_the_command_and_lose_nothing() -> None:
    create_limit("gpu", 1)
    script = "import sys; print(sys.argv[1].encode('utf-8', 'surrogateescape'), flush=True); input(); sys.exit(7)"
    with running("run", "gpu", "--", sys.executable, "-c", script, b"caf\xe9.jpg") as holder:
        assert holder.read_line() == "b'caf\\xe9.jpg'"
        shown = f"{sys.executable} -c {script} caf\N{REPLACEMENT CHARACTER}.jpg"
        until(lambda: read_holders("gpu")[0].command == shown)
        assert read_limit("gpu").active_slots == 1
        assert holder.end() == 7
        assert holder.process.stderr is not None
    assert read_limit("gpu").active_slots == 0


@pytest.mark.parametrize("function", ["run", "run_with_handlers"])
def test_what_goes_wrong_once_the_command_runs_does_not_lose_it(function: str) -> None:
    script = (
        "import sys\nfrom localconc.cli import child\n"
        "def fail(pid): raise UnicodeEncodeError('utf-8', '', 0, 1, 'no')\n"
        f"print(child.{function}(sys.argv[1:], None, fail))"
    )
    words = [sys.executable, "-c", script, "sh", "-c", "exit 7"]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert result.stdout.strip() in ("7", "-7")
    assert result.stderr == ""


def test_a_signal_that_can_not_be_passed_on_does_not_lose_the_command() -> None:
    script = (
        "import os, sys\nfrom localconc.cli import child\n"
        "def refuse(pid, number): print('refused', flush=True); raise PermissionError\n"
        "kill, os.kill = os.kill, refuse\n"
        "print(child.run(sys.argv[1:], None, lambda pid: print('started', flush=True)), flush=True)"
    )
    with running(command=[sys.executable, "-c", script, "sh", "-c", "read line; exit 7"]) as runner:
        assert runner.read_line() == "started"
        runner.process.terminate()
        assert runner.read_line() == "refused"
        runner.write_line()
        assert runner.read_line() == "7"


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_signals_are_forwarded_once(name: str) -> None:
    create_limit("gpu", 1)
    counting = (
        "import os, select, signal, sys\n"
        f"signal.signal(signal.{name}, lambda *_: os.write(1, b'got\\n'))\n"  # print may be at work already
        "print('ready', flush=True)\n"
        "while not select.select([sys.stdin], [], [], 0.05)[0]: pass\n"  # a handler may not run before a call blocks
        "sys.exit(3)\n"
    )
    with running("run", "gpu", "--", sys.executable, "-c", counting) as runner:
        assert runner.read_line() == "ready"
        runner.process.send_signal(getattr(signal, name))
        assert runner.read_line() == "got"
        output, _ = runner.process.communicate("\n", timeout=30)
        assert (output, runner.process.returncode) == ("", 3)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system blocks no signals")
def test_the_command_starts_with_the_signals_as_they_were() -> None:
    create_limit("gpu", 1)
    script = (
        "import signal; print(signal.pthread_sigmask(0, []), "
        "[s for s in (1, 2, 3, 10, 15, 17, 20) if signal.getsignal(s) == signal.SIG_IGN])"
    )
    assert ok("run", "gpu", "--", sys.executable, "-c", script) == "set() []\n"
    assert ok("run", "gpu", "--", "sh", "-c", "yes | head -1") == "y\n"  # not: yes: standard output: Broken pipe


def test_sigterm_while_waiting_leaves_the_queue() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"), running("run", "gpu", "--", "true") as waiter:
        until(lambda: read_waiters("gpu"))
        waiter.process.terminate()
        assert waiter.wait() == 143
        assert read_waiters("gpu") == []


def test_an_interrupt_while_waiting_leaves_the_queue_with_130() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"), running("run", "gpu", "--", "true") as waiter:
        until(lambda: read_waiters("gpu"))
        waiter.process.send_signal(signal.SIGINT)
        assert waiter.wait() == 130
        assert waiter.process.stderr is not None
        assert waiter.process.stderr.read() == ""
        assert read_waiters("gpu") == []


def test_an_ignored_child_signal_does_not_lose_the_exit_status() -> None:
    create_limit("gpu", 1)
    ignoring = (
        "import signal, os, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    result = subprocess.run(
        [sys.executable, "-c", ignoring, *COMMAND, "run", "gpu", "--", "sh", "-c", "exit 7"], check=False, timeout=30
    )
    assert result.returncode == 7


# ---- whatever happens to either process ------------------------------------------------------------------------------


def test_a_killed_command_gives_its_slots_back() -> None:
    create_limit("gpu", 1)
    with running("run", "gpu", "--", *SAY_AND_READ) as holder:
        os.kill(int(holder.read_line()), signal.SIGKILL)
        assert holder.wait() == 137
    assert read_limit("gpu").active_slots == 0


@needs_watch
def test_a_command_that_ended_was_not_killed_though_a_waiter_saw_its_end_first() -> None:
    create_limit("gpu", 1)
    with running("run", "gpu", "--", *SAY_AND_READ) as holder:
        pid = int(holder.read_line())
        until(lambda: [held.pid for held in read_holders("gpu")] == [pid])
        stop(holder.process.pid)  # it can't release before the waiter has seen the end
        waiter = threading.Thread(target=lambda: concurrency("gpu").__enter__())
        waiter.start()
        until(lambda: read_waiters("gpu"))
        holder.write_line()
        waiter.join(30)
        assert not waiter.is_alive()
        holder.process.send_signal(signal.SIGCONT)
        holder.wait()
    ended = read_history("gpu")[0]
    assert (ended.ending, ended.released_at is not None) == ("released", True)


#: Says its pid and its child's, and lives until a line comes in; the child lives on.
LEAVING_A_CHILD_BEHIND = "sleep 60 >/dev/null 2>&1 </dev/null & echo $$ $!; read line"


def _kill_run(holder: Running, pid: int) -> None:
    """SIGKILL `localconc run` once its slots are known to be the command's."""
    until(lambda: [held.pid for held in read_holders("gpu")] == [pid])
    holder.process.kill()
    holder.wait()


@needs_process_table
def test_when_run_is_killed_the_slots_stay_with_the_command_and_come_back_with_its_end() -> None:
    create_limit("gpu", 1)
    with running("run", "gpu", "--", *SAY_AND_READ) as holder:
        pid = int(holder.read_line())
        _kill_run(holder, pid)
        assert process_lives(pid)
        fails("run", "gpu", "--timeout", "0.3", "--", "true", status=124)
        assert [held["pid"] for held in as_json("inspect", "gpu")["holders"]] == [pid]
        holder.write_line()
        until(lambda: not process_lives(pid))
        ok("run", "gpu", "--timeout", "0", "--", "true")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the test itself watches the command by a pidfd")
@pytest.mark.parametrize("waits_before_the_kill", [True, False])
def test_a_waiter_is_told_of_the_end(waits_before_the_kill: bool) -> None:
    create_limit("gpu", 1)
    with running("run", "gpu", "--", "sh", "-c", LEAVING_A_CHILD_BEHIND) as holder:
        pid, left_behind = map(int, holder.read_line().split())
        if not waits_before_the_kill:
            _kill_run(holder, pid)
        granted = []

        def wait() -> None:
            with concurrency("gpu"):
                granted.append(time.monotonic())

        waiter = threading.Thread(target=wait)
        waiter.start()
        until(lambda: read_waiters("gpu"))
        if waits_before_the_kill:
            _kill_run(holder, pid)
        ok("run", "unlimited", "--limit", "1", "--", "true")  # some time passes; nobody is admitted
        assert granted == []
        assert process_lives(pid)
        descriptor = os.pidfd_open(pid)
        holder.write_line()
        assert select.select([descriptor], [], [], 30)[0]
        ended = time.monotonic()
        os.close(descriptor)
        waiter.join(5)
        os.kill(left_behind, signal.SIGKILL)
        assert granted[0] - ended < 0.6, "it was told, it did not poll"


@needs_process_table
def test_what_the_command_leaves_behind_does_not_keep_the_slots() -> None:
    create_limit("gpu", 1)
    with running("run", "gpu", "--", "sh", "-c", LEAVING_A_CHILD_BEHIND) as holder:
        pid, left_behind = map(int, holder.read_line().split())
        try:
            _kill_run(holder, pid)
            holder.write_line()
            until(lambda: not process_lives(pid))
            assert process_lives(left_behind)
            ok("run", "gpu", "--timeout", "0", "--", "true")
        finally:
            os.kill(left_behind, signal.SIGKILL)


def test_the_command_of_a_killed_run_counts_as_a_user_of_the_home(localconc_home_directory: Path) -> None:
    create_limit("gpu", 1)
    with running("run", "gpu", "--", *SAY_AND_READ) as holder:
        pid = int(holder.read_line())
        _kill_run(holder, pid)
        assert list(living(localconc_home_directory, _own_key()).values()) == [holder.pid]  # the file names who made it
        holder.write_line()
        until(lambda: not process_lives(pid))
        assert list(living(localconc_home_directory, _own_key()).values()) == []


def _own_key() -> str:
    owner = registry.current().membership.owner
    assert owner is not None
    return owner.key


@needs_process_table
def test_a_command_that_closes_all_it_inherits_keeps_the_slots() -> None:
    create_limit("gpu", 1)
    closing = "import os; os.closerange(3, 4096); print(os.getpid(), flush=True); input()"
    with running("run", "gpu", "--", sys.executable, "-c", closing) as holder:
        pid = int(holder.read_line())
        _kill_run(holder, pid)
        fails("run", "gpu", "--timeout", "0.3", "--", "true", status=124)
        holder.write_line()
        until(lambda: not process_lives(pid))
        ok("run", "gpu", "--timeout", "0", "--", "true")


# ---- rate ------------------------------------------------------------------------------------------------------------


def test_rate_returns_when_admitted_and_takes_a_slot() -> None:
    ok("rate", "api", "--limit", "2", "--rate", "1/hour")
    ok("rate", "api")
    assert read_limit("api").active_slots == 2
    assert re.search("'api'.* 2 of 2 ", fails("rate", "api", "--timeout", "0", status=124))


def test_rate_waits_until_a_slot_has_drained() -> None:
    create_limit("api", 1, slot_decay_per_second=2.0)
    rate_limit("api")
    ok("rate", "api", "--timeout", "30")


def test_rate_needs_a_limit_with_decay_and_says_how_to_get_one() -> None:
    create_limit("gpu", 1)
    assert "localconc update gpu --rate" in fails("rate", "gpu", status=1)
    assert "give --rate as well" in fails("rate", "new", "--limit", "1", status=1)
    assert [limit.name for limit in read_limits()] == ["gpu"]


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_wait_for_a_rate(name: str, status: int) -> None:
    create_limit("api", 1, active_slots=1, slot_decay_per_second=1e-3)
    with running("rate", "api") as waiter:
        until(lambda: read_waiters("api"))
        waiter.process.send_signal(getattr(signal, name))
        assert waiter.wait() == status
        assert waiter.process.stderr is not None
        assert waiter.process.stderr.read() == ""
        assert read_waiters("api") == []


# ---- where nobody tells who sent a signal ----------------------------------------------------------------------------


_RUNS_IN_THE_PORTABLE_WAY = """
import os, signal, sys, threading
from localconc.cli import child
def started(pid):
    if sys.argv[1] == "another thread":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    os.write(1, b"started\\n")
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(child.run_with_handlers(sys.argv[2:], None, started), flush=True)
"""


_needs_masks = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no thread can refuse a signal")


@pytest.mark.parametrize("interrupted", ["this thread", pytest.param("another thread", marks=_needs_masks)])
def test_the_portable_way_passes_exit_status_and_signals_on(interrupted: str) -> None:
    """Also a signal that interrupts no system call of the main thread: one just before it does not, either."""
    answering = "trap 'exit 9' TERM; echo ready; while :; do read line || exit 1; done"
    command = [sys.executable, "-c", _RUNS_IN_THE_PORTABLE_WAY, interrupted, "sh", "-c", answering]
    with running(command=command) as runner:
        assert {runner.read_line(), runner.read_line()} == {"started", "ready"}
        runner.process.terminate()
        runner.write_line()
        assert runner.read_line() == "9"


_HAS_MANY_OR_NO_DESCRIPTORS = """
import os, resource, sys
from localconc.cli import child
opened = []
def use(count):
    try:
        while len(opened) < count: opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError: pass
if sys.argv[1] == "many":
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
    use(1100)
    started = lambda pid: None
else:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    started = lambda pid: use(64)
print(child.run_with_handlers(["sh", "-c", "read line; exit 3"], None, started), flush=True)
"""


_needs_poll = pytest.mark.skipif(not hasattr(select, "poll"), reason="select() knows the first 1,024 descriptors only")


@pytest.mark.parametrize("descriptors", [pytest.param("many", marks=_needs_poll), "no more"])
def test_the_portable_way_waits_for_its_command_with_many_descriptors_or_no_more(descriptors: str) -> None:
    with running(command=[sys.executable, "-c", _HAS_MANY_OR_NO_DESCRIPTORS, descriptors]) as runner:
        runner.write_line()
        assert runner.read_line() == "3"


def test_the_portable_way_says_that_there_is_no_command() -> None:
    with pytest.raises(child.CommandError, match="no-such-command"):
        child.run_with_handlers(["no-such-command"], None, lambda pid: None)
