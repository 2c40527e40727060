"""What this process holds: handles, the finalizers that release dropped ones, the occupancy that a caller gets.

Offers `Holdings`, `Handle`, `Occupancy`, `Finalizers` and `BackgroundReleases`.
Must not know: the order of the queue, or how a caller waits.
"""
