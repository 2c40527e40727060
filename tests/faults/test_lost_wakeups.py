"""What a waiter knows of its limits is not frozen at the time it queued: a change without a wakeup reaches it, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localconc import ensure_limit, read_limit
from tests.faults.programs import Cast, in_line, until

#: A process that dies between the commit and the first wakeup, or one whose wakeups are all lost.
_LOSES_ITS_WAKEUPS = """
import os, signal, socket, sys
import localconc
localconc.read_limits()
def lose(*arguments, **options):
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return 1
for name in ("send", "sendall", "sendto", "sendmsg"):
    setattr(socket.socket, name, lose)
exec(sys.argv[2])
"""

CHANGES = {
    "gains a decay": "localconc.update_limit('L', slot_decay_per_second=4.0)",
    "is raised": "localconc.update_limit('L', limit=2)",
    "is disabled": "localconc.update_limit('L', active=False)",
    "is deleted": "localconc.delete_limit('L')",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills by a signal")
@pytest.mark.parametrize("fate", ["dies", pytest.param("lives", marks=pytest.mark.sweep)])
@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_whose_wakeup_is_lost_reaches_those_who_wait(
    change: str, fate: str, programs: Cast, localconc_home_directory: Path
) -> None:
    ensure_limit("L", 1)
    holder, waiter = programs.puppet(), programs.puppet()
    holder.must_enter("L")
    waiter.begins_to_enter("L")
    until(lambda: in_line(localconc_home_directory) == 1, "it waits")

    programs.python(_LOSES_ITS_WAKEUPS, fate, CHANGES[change]).process.wait(10)

    assert waiter.outcome("L", 4) == "done"


def test_a_limit_that_loses_its_decay_and_gains_it_again_without_wakeups_goes_on(
    programs: Cast, localconc_home_directory: Path
) -> None:
    ensure_limit("api", 1, slot_decay_per_second=0.01)
    programs.puppet().do("rate_limit", "api")
    waiter = programs.puppet()
    waiter.begins_to_enter("api")
    until(lambda: in_line(localconc_home_directory) == 1, "it waits")

    for decay in (0.0, 4.0):
        change = f"localconc.update_limit('api', slot_decay_per_second={decay})"
        programs.python(_LOSES_ITS_WAKEUPS, "lives", change).process.wait(10)

    assert waiter.outcome("api", 4) == "done"
    assert read_limit("api").slot_decay_per_second == 4.0
