"""One try to acquire or release slots: the outcome is a grant, a place in the queue, or a refusal.

Offers `Acquisitions` (the tries), `QueuedRequests` (the state of a queued request, its outcome) and their terms.
Must not know: how a caller waits, or what an operator does.
"""
