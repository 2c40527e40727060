"""A process that has localconc loaded and starts workers by forking, one for each point at which one is struck.

Run as a program. Each line of its input asks for one worker: the name of a scenario, a home, and where to strike.
Each line of its output tells how that worker ended.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import localconc
from localconc._engine import registry
from localconc._engine.store import database
from localconc._engine.store.rows import schema
from localconc.errors import AcquireConcurrencySlotTimeoutError, LocalconcError
from localconc.sync import concurrency, rate_limit
from tests.trust import inspection
from tests.trust.points import Calls, Statements

Arm = Callable[[], None]


def warm(*names: str) -> None:
    for _ in range(3):
        with concurrency(list(names)):
            pass


def at_first_opening(arm: Arm) -> None:
    arm()
    with concurrency("fresh", limit=1):
        pass


def in_the_common_case(arm: Arm) -> None:
    warm("gate")
    arm()
    with concurrency("gate"):
        pass


def by_the_general_rules(arm: Arm) -> None:
    warm("other")
    arm()
    with concurrency(["gate", "other"]):
        pass


def while_waiting(arm: Arm) -> None:
    warm("other")
    arm()
    with concurrency("gate", timeout_seconds=5):
        pass


def while_timing_out(arm: Arm) -> None:
    warm("other")
    arm()
    with suppress(AcquireConcurrencySlotTimeoutError), concurrency("gate", timeout_seconds=0.01):
        pass


def while_handing_off(arm: Arm) -> None:
    block = concurrency("gate")
    block.__enter__()
    inspection.wait_until(lambda: inspection.waiting(localconc.home()), "another process waits")
    arm()
    block.__exit__(None, None, None)


def at_a_rate(arm: Arm) -> None:
    warm("other")
    arm()
    rate_limit("rate")
    rate_limit("rate")


def while_trimming_the_history(arm: Arm) -> None:
    for _ in range(schema.HISTORY_SLACK_ROWS // 3):
        warm("gate")
    arm()
    for _ in range(3):
        with concurrency("gate"):
            pass


def while_creating_a_limit(arm: Arm) -> None:
    warm("other")
    arm()
    localconc.create_limit("new", 3)


def while_updating_a_limit(arm: Arm) -> None:
    warm("gate")
    arm()
    localconc.update_limit("gate", limit=1, slot_decay_per_second=0.001)  # slower than what follows
    localconc.update_limit("gate", slot_decay_per_second=0.0)


def while_pausing_a_limit(arm: Arm) -> None:
    warm("gate")
    arm()
    localconc.pause_limit("gate", 0.02)
    with concurrency("gate", timeout_seconds=5):
        pass
    localconc.resume_limit("gate")


def while_numbering_slots(arm: Arm) -> None:
    warm("other")
    with concurrency("other") as occupancy:
        arm()
        assert occupancy.numbers == (0,)


def while_deleting_a_limit(arm: Arm) -> None:
    warm("gate")
    arm()
    localconc.delete_limit("other")


def while_reaping_the_dead(arm: Arm) -> None:
    arm()
    with concurrency("gate", timeout_seconds=5):
        pass


def while_rebuilding(arm: Arm) -> None:
    arm()
    with concurrency("gate", timeout_seconds=5):
        pass


def while_migrating(arm: Arm) -> None:
    arm()
    with concurrency("gate", limit=1, timeout_seconds=5):
        pass


def while_restoring_a_deleted_store(arm: Arm) -> None:
    warm("gate")
    database.VERIFY_EVERY_SECONDS = 0.0  # type: ignore[misc]
    with concurrency("other"):
        for path in localconc.home().glob("localconc.db*"):
            path.unlink()
        registry.current().store.database.verify_after = 0.0
        arm()
        with concurrency("gate", timeout_seconds=5):
            pass


def while_ending(arm: Arm) -> None:
    warm("gate")
    arm()
    registry.forget_all()


def hold_and_die(arm: Arm) -> None:
    block = concurrency(["gate", "other"])
    block.__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


SCENARIOS: dict[str, Callable[[Arm], None]] = {
    function.__name__: function
    for function in (
        at_first_opening,
        in_the_common_case,
        by_the_general_rules,
        while_waiting,
        while_timing_out,
        while_handing_off,
        at_a_rate,
        while_trimming_the_history,
        while_creating_a_limit,
        while_updating_a_limit,
        while_pausing_a_limit,
        while_numbering_slots,
        while_deleting_a_limit,
        while_reaping_the_dead,
        while_rebuilding,
        while_migrating,
        while_restoring_a_deleted_store,
        while_ending,
        hold_and_die,
    )
}


def work(order: dict[str, Any], points: Calls | Statements) -> dict[str, Any]:
    """Play the scenario in this process; tells what came of it."""
    os.environ["LOCALCONC_HOME"] = order["home"]
    outcome = "done"
    try:
        SCENARIOS[order["scenario"]](lambda: points.arm(order["at"], order["deed"], order["error"]))
    except LocalconcError as error:
        outcome = f"{type(error).__name__}: {error}"
    except BaseException as error:
        import traceback

        outcome = f"unexpected {type(error).__name__}: {''.join(traceback.format_exception(error)[-6:])}"
    counted = points.disarm()
    left = ""
    if order["deed"] == FAIL and Path(order["home"], "localconc.db").is_file():
        try:  # the worker lives: what it did not give back would stay taken
            me = f"{os.getpid()}"
            inspection.wait_until(lambda: not held_by_pid(order["home"], me), "given back by a living worker", 5.0)
        except sqlite3.DatabaseError:
            pass  # it is damaged still: nothing was taken in it
        except AssertionError as error:
            left = str(error)
    return {"counted": counted, "outcome": outcome, "left": left}


def held_by_pid(home: str, pid: str) -> int:
    return len(
        inspection.rows(
            Path(home),
            "SELECT 1 FROM owners WHERE pid = ? AND (id IN (SELECT owner_id FROM slots) "
            "OR id IN (SELECT owner_id FROM waiters WHERE state = 0))",
            int(pid),
        )
    )


FAIL = 2


def main() -> None:
    logging.getLogger("localconc").setLevel(logging.CRITICAL)
    level = {"calls": Calls, "statements": Statements}[sys.argv[1]]
    points = level()
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.write(writing, json.dumps(work(order, points)).encode())
            os._exit(0)
        os.close(writing)
        print(json.dumps({"pid": pid}), flush=True)
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": status, **(json.loads(text) if text else {})}), flush=True)


if __name__ == "__main__":
    main()
