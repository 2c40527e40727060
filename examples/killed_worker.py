"""A worker is killed while it holds the only slot; the next worker gets it, without a lease or a time-out.

python examples/killed_worker.py
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection

from localconc import ensure_limit, read_holders, read_waiters
from localconc.sync import concurrency

ROUNDS = 5


def work(pipe: Connection) -> None:
    """Acquire the slot, tell the parent when, and hold it until the parent says so, or kills this process."""
    with concurrency("gpu"):
        pipe.send(time.monotonic())
        pipe.recv()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="localconc-") as home:
        os.environ.setdefault("LOCALCONC_HOME", home)
        ensure_limit("gpu", 1)
        for number in range(1, ROUNDS + 1):
            milliseconds = one_round(multiprocessing.get_context("spawn"))
            print(f"  round {number}: the next worker had the slot {milliseconds:.2f} ms after the kill")
        print(f"\nslots still held: {len(read_holders('gpu'))}")


def one_round(context: multiprocessing.context.SpawnContext) -> float:
    """Kill the holder; return how many milliseconds later the next worker had the slot."""
    first_pipe, theirs = context.Pipe()
    first = context.Process(target=work, args=(theirs,))
    first.start()
    first_pipe.recv()
    (holder,) = read_holders("gpu")

    second_pipe, theirs = context.Pipe()
    second = context.Process(target=work, args=(theirs,))
    second.start()
    while not read_waiters("gpu"):
        time.sleep(0.01)
    print(f"pid {holder.pid} holds the only slot of 'gpu', pid {second.pid} waits for it: kill -9 {holder.pid}")

    killed_at = time.monotonic()
    first.kill()
    taken_at: float = second_pipe.recv()
    first.join()
    second_pipe.send("end")
    second.join()
    return (taken_at - killed_at) * 1e3


if __name__ == "__main__":
    main()
