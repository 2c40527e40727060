"""Which processes live: the locked file of each, this process's membership in a store, the watch on the others.

Offers `Membership` (join, leave), `Reaper` (watch, reap, pass over) and `Watch`.
Must not know: requests, or how a caller waits.
"""
