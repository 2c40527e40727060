"""Acquiring slots, tried once: the outcome is a grant, a place in the queue, or a refusal.

Offers `Acquisitions` (the tries), `QueuedRequests` (how a queued request stands, what becomes of it) and their terms.
Must not know: how a caller waits, or what an operator does.
"""
