"""The engine: who may take a slot, who waits, and who is next.

A slot's way, from call to row and back::

    faces           sync.py, asyncio.py, limits.py, events.py, testing, cli: what people import
    homes           the engine of the home that the environment names; what a fork does
    acquiring       the way of one call, step by step    blocking, awaiting: how a thread, a task pauses
    engine          take, give back, wait, notice deaths    store: the ledger in turns, and membership
    admission       who gets in next    definitions: limits change    turn: one transaction
    ledger          the rows, all SQL (history: what was)    owners: who lives    wakeup: how one is told
    database        the file, its lock, its connection    journal: definitions beside it    schema
    rules           pure arithmetic    clock, model, arguments, faults, home

Imports point down only.
"""
