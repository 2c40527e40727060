"""Which processes live: the locked file of each, this process's membership in a store, the watch on the others.

An owner's file also tells which log the process has open, for the store can't (`open_logs`).

Offers `Membership` (join, leave), `Reaper` (watch, reap, pass over) and `Watch`.
Must not know: which request is next, or how a caller waits.
"""
