"""A program whose three threads use the limit `api` all the time, while something happens to them."""

from __future__ import annotations

from typing import Final

#: Its arguments: for how many seconds; what happens; for `thrown`, how many seconds apart something is thrown into each
#: of its threads. It then says "well" or what went wrong, and how many times its threads got in, and goes on until its
#: input ends.
LOAD: Final = """
import os, random, sys, tempfile, threading, time
import ctypes
import localconc
from localconc.sync import concurrency, rate_limit

seconds, kind, pause_seconds = float(sys.argv[1]), sys.argv[2], float((sys.argv[3:] or ["0.01"])[0])
troubles, done = [], [0]

class Thrown(Exception): pass

def load_all():
    '''Load what is loaded when it is needed: Python's own import can't take what is thrown into it.'''
    home = os.environ["LOCALCONC_HOME"]
    with tempfile.TemporaryDirectory() as os.environ["LOCALCONC_HOME"]:
        with concurrency("api", limit=1):
            waiter = threading.Thread(target=wait_in_vain)
            waiter.start()
            waiter.join()
    os.environ["LOCALCONC_HOME"] = home

def wait_in_vain():
    try:
        with concurrency("api", timeout_seconds=0.02): pass
    except TimeoutError as error:
        list(error.holders)

load_all()
end = time.monotonic() + seconds

def work(number):
    chance = random.Random(number)
    while time.monotonic() < end:
        try:
            if kind == "lowered":
                rate_limit("api", occupy=chance.choice((1, 1, 3, 6)), timeout_seconds=1)
            elif kind == "dropped":
                block = concurrency("api", timeout_seconds=chance.choice((0.002, 1)))
                block.__enter__()
                if chance.random() < 0.5:
                    block.__exit__(None, None, None)
                del block
            else:
                with concurrency("api", timeout_seconds=1):
                    pass
            done[0] += 1
        except (TimeoutError, localconc.ConcurrencySlotAcquisitionError, Thrown):
            pass
        except Exception as error:
            troubles.append(f"{type(error).__name__}: {error}")
            return

threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(3)]
for thread in threads:
    thread.start()
while time.monotonic() < end:
    time.sleep(pause_seconds)
    if kind == "thrown":
        for thread in filter(threading.Thread.is_alive, threads):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Thrown))
for thread in threads:
    for _ in range(100):
        if not thread.is_alive():
            break
        thread.join(0.1)
if any(thread.is_alive() for thread in threads):
    troubles.append("a thread never came back")
print("; ".join(dict.fromkeys(troubles)) or "well", done[0], flush=True)
sys.stdin.read()
"""
