"""Containers that share a home: other numberings of processes, other networks, other boot identities, other clocks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from localconc import ensure_limit, read_holders, read_limit
from localconc.sync import rate_limit
from tests.faults.programs import Cast, in_line, until
from tests.kit.systems import needs_sockets, needs_watch

_OTHER_BOOT = "11111111-2222-3333-4444-555555555555"
_BOOT_IDENTITY = "/proc/sys/kernel/random/boot_id"


@cache
def _is_permitted(*prefix: str) -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False, timeout=20)
    return tried.returncode == 0


def _needs(*prefix: str) -> tuple[str, ...]:
    if not _is_permitted(*prefix):
        pytest.skip(f"`{' '.join(prefix[:4])} …` is not permitted here")
    return prefix


def _with_another_boot_identity(tmp_path: Path, identity: str = _OTHER_BOOT) -> tuple[str, ...]:
    """As in a container of LXC or nspawn: a file of its own lies over the kernel's."""
    file = tmp_path / f"boot_id-{identity[:4]}"
    file.write_text(identity + "\n")
    script = f'mount --bind {file} {_BOOT_IDENTITY} && exec "$0" "$@"'
    return _needs("unshare", "--mount", "sh", "-c", script)


def in_another_pid_namespace() -> tuple[str, ...]:
    return _needs("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def _in_a_jail_without_proc(pids_before: int) -> tuple[str, ...]:
    """In another pid namespace, which a process in it can't tell; so many pids were given before its own."""
    script = (
        "mount --make-rprivate / && umount -l /proc && mount -t tmpfs tmpfs /proc && "
        f'for each in $(seq {pids_before}); do /bin/true; done; "$0" "$@"; true'
    )
    return _needs("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script)


# ---- 4: boot identities ----------------------------------------------------------------------------------------------


def test_a_container_with_a_boot_identity_of_its_own_forgets_nobody_who_holds(programs: Cast, tmp_path: Path) -> None:
    container = _with_another_boot_identity(tmp_path)
    ensure_limit("L", 1)
    holder = programs.puppet()
    holder.must_enter("L")

    inside = programs.puppet(prefix=container)
    assert inside.evaluate(f"open('{_BOOT_IDENTITY}').read().strip()") == _OTHER_BOOT
    assert not inside.enters("L")

    assert [each.pid for each in read_holders("L")] == [holder.pid]
    holder.leave("L")
    assert inside.enters("L", timeout_seconds=2)
    assert not holder.enters("L")
    assert not programs.puppet().enters("L"), "one of the machine itself forgets the one in the container"


def test_many_containers_and_the_machine_take_turns_in_one_store(programs: Cast, tmp_path: Path) -> None:
    """Each that opens it must leave the others' holds alone, in whatever order they come."""
    ensure_limit("L", 3)
    puppets = []
    for number in range(3):
        identity = _OTHER_BOOT.replace("1111", f"{number}{number}{number}{number}")
        puppets.append(programs.puppet(prefix=_with_another_boot_identity(tmp_path, identity)))
        puppets[-1].must_enter("L")

    assert not programs.puppet().enters("L")
    assert read_limit("L").active_slots == 3
    puppets[0].kill()
    assert programs.puppet().enters("L", timeout_seconds=3)


def test_a_rate_goes_on_at_its_pace_when_a_container_opens_the_store(programs: Cast, tmp_path: Path) -> None:
    container = _with_another_boot_identity(tmp_path)
    ensure_limit("api", 1, slot_decay_per_second=2.0)
    holder = programs.puppet()
    holder.must_enter("L", limit=1)
    rate_limit("api")
    inside = programs.puppet(prefix=container)

    began = time.monotonic()
    assert inside.do("rate_limit", "api", timeout_seconds=5) == "done"
    assert inside.do("rate_limit", "api", timeout_seconds=5) == "done"

    assert 0.4 < time.monotonic() - began < 3


def test_after_a_real_reboot_nobody_holds(programs: Cast, tmp_path: Path) -> None:
    """Another identity, and nobody of before lives: that is one."""
    container = _with_another_boot_identity(tmp_path)
    holder = programs.puppet()
    holder.must_enter("L", limit=1)
    holder.kill()

    assert programs.puppet(prefix=container).enters("L", timeout_seconds=2)


# ---- 16: networks ----------------------------------------------------------------------------------------------------


@pytest.mark.sweep
def test_hand_overs_between_network_namespaces_are_quick(programs: Cast, localconc_home_directory: Path) -> None:
    container = _needs("unshare", "--net")
    ensure_limit("L", 1)
    outside, inside = programs.puppet(), programs.puppet(prefix=container)
    inside.must_enter("other", limit=1)

    began = time.monotonic()
    outside.must_enter("L")
    for _ in range(10):
        for waiter, holder in ((inside, outside), (outside, inside)):
            waiter.tell("enter", "L", timeout_seconds=10)
            until(lambda: in_line(localconc_home_directory) == 1, "it waits")
            holder.leave("L")
            assert waiter.answer() == "done"

    assert time.monotonic() - began < 2.0, "20 hand-overs: no wakeup crosses"


_CHANGES_PLACES = """
import sys, time
from localconc.sync import concurrency
print("ready", flush=True); sys.stdin.readline()
end, count = time.monotonic() + 2, 0
while time.monotonic() < end:
    with concurrency("L", limit=1): count += 1
print(count, flush=True)
"""


@needs_sockets
def test_processes_of_two_networks_that_share_a_limit_work_at_full_speed(programs: Cast) -> None:
    container = _needs("unshare", "--net")
    crowd = [programs.python(_CHANGES_PLACES) for _ in range(2)]
    crowd += [programs.command(*container, sys.executable, "-c", _CHANGES_PLACES)]
    for program in crowd:
        assert program.hear() == "ready"
    for program in crowd:
        program.say()
    counts = [int(program.hear(10)) for program in crowd]

    assert counts[2] > 10, f"{counts}: each hand-over to the other network waits for a poll"


# ---- 17: clocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift_seconds", [100_000, pytest.param(2_000, marks=pytest.mark.sweep)])
def test_a_container_with_a_shifted_boot_clock_shows_no_level_above_the_limit(
    shift_seconds: int, programs: Cast
) -> None:
    container = _needs(
        "unshare", "--time", "--boottime", str(shift_seconds), "--monotonic", str(shift_seconds), "--fork"
    )
    ensure_limit("api", 2, slot_decay_per_second=2.0)
    inside = programs.puppet(prefix=container)

    assert inside.do("rate_limit", "api", timeout_seconds=3) == "done"
    assert read_limit("api").active_slots <= 2
    assert rate_limit("api", timeout_seconds=4) is None  # type: ignore[func-returns-value]
    assert inside.evaluate("localconc.read_limit('api').active_slots") <= 2
    assert inside.do("rate_limit", "api", timeout_seconds=4) == "done"
    assert read_limit("api").active_slots <= 2
    _, report = programs.command(sys.executable, "-m", "localconc", "doctor").end(30)
    assert "WRONG" not in report


def test_a_holder_with_a_shifted_boot_clock_is_known_to_all(programs: Cast) -> None:
    container = _needs("unshare", "--time", "--boottime", "50000", "--fork")
    ensure_limit("L", 1)
    inside = programs.puppet(prefix=container)
    inside.must_enter("L")

    assert not programs.puppet().enters("L")
    inside.leave("L")
    assert programs.puppet().enters("L", timeout_seconds=2)
    assert read_limit("L").avg_slot_occupancy_seconds < 10


def test_a_command_in_a_container_with_a_shifted_boot_clock_keeps_its_slot(programs: Cast) -> None:
    """The kernel tells each time namespace another moment at which a process started."""
    container = _needs("unshare", "--time", "--boottime", "50000", "--fork")
    run = (sys.executable, "-m", "localconc", "run", "L", "--limit", "1", "--", "sh", "-c", "echo in; read line")
    command = programs.command(*container, *run)
    assert command.hear() == "in"

    assert not programs.puppet().enters("L")
    command.say()
    assert programs.puppet().enters("L", timeout_seconds=5)


# ---- 20, 22: numberings of processes ---------------------------------------------------------------------------------


def test_a_killed_holder_in_another_pid_namespace_gives_its_slot_to_those_who_wait(
    programs: Cast, localconc_home_directory: Path
) -> None:
    container = in_another_pid_namespace()
    ensure_limit("L", 1)
    inside, waiter = programs.puppet(prefix=container), programs.puppet()
    inside.must_enter("L")
    waiter.begins_to_enter("L")
    until(lambda: in_line(localconc_home_directory) == 1, "it waits")
    time.sleep(1.0)  # it has begun to watch

    inside.kill()

    assert waiter.outcome("L", 2) == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no pid namespaces")
def test_jails_that_do_not_know_their_pid_namespaces_do_not_take_each_other_for_dead(programs: Cast) -> None:
    ensure_limit("L", 1)
    holder = programs.puppet(prefix=_in_a_jail_without_proc(30))
    other = programs.puppet(prefix=_in_a_jail_without_proc(0))
    assert holder.own_pid > 30 > other.own_pid
    assert holder.evaluate("os.path.exists('/proc/self')") is False
    holder.must_enter("L")

    assert not other.enters("L"), "two hold a limit of 1"
    assert not programs.puppet().enters("L")
    holder.kill()
    assert other.enters("L", timeout_seconds=5)


_WAITING_CROWD = """
import os, sys, time
from localconc.sync import concurrency
count = int(sys.argv[1])
pids = []
for _ in range(count):
    pid = os.fork()
    if pid == 0:
        try:
            with concurrency("L", timeout_seconds=60): pass
        except BaseException: pass
        os._exit(0)
    pids.append(pid)
    time.sleep(0.004)
print(*pids, flush=True)
sys.stdin.read()
for pid in pids: os.kill(pid, 9)
for pid in pids: os.waitpid(pid, 0)
"""


def _cores_used_by_waiters(programs: Cast, home: Path, count: int, seconds: float) -> float:
    ensure_limit("L", 1)
    holder = programs.puppet()
    holder.must_enter("L")
    crowd = programs.python(_WAITING_CROWD, count)
    pids = [int(word) for word in crowd.hear(60).split()]
    until(lambda: in_line(home) == count, "all wait", 60)
    time.sleep(1.5)
    until(lambda: _cores_used(pids, 1.0) < 0.3, "they have begun to watch", 60)  # which takes the processors a while
    used = _cores_used(pids, seconds)
    crowd.finish(30)
    return used


def _cores_used(pids: list[int], seconds: float) -> float:
    before, began = _processor_seconds(pids), time.monotonic()
    time.sleep(seconds)
    return (_processor_seconds(pids) - before) / (time.monotonic() - began)


def _processor_seconds(pids: list[int]) -> float:
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


@needs_watch
@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="needs the scheduler's statistics")
def test_an_idle_process_in_a_container_does_not_make_those_who_wait_busy(
    programs: Cast, localconc_home_directory: Path
) -> None:
    container = in_another_pid_namespace()
    idle = programs.puppet(prefix=container)
    idle.must_enter("unrelated", limit=3)
    idle.leave("unrelated")

    assert _cores_used_by_waiters(programs, localconc_home_directory, 30, 2.0) < 0.05


@pytest.mark.sweep
@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="needs the scheduler's statistics")
def test_three_hundred_processes_that_wait_cost_little(programs: Cast, localconc_home_directory: Path) -> None:
    used = _cores_used_by_waiters(programs, localconc_home_directory, 300, 5.0)
    assert used < 0.3, f"{used:.2f} cores: if each polled, it would be one"
