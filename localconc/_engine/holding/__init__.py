"""What this process holds: handles, what releases them when they are dropped, what a caller sees of them.

Offers `Holdings`, `Handle`, `Occupancy`, `Finalizers` and `BackgroundReleases`.
Must not know: the store, the queue, or how a caller waits.
"""
