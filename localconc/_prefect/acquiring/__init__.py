"""How a call gets its slots: one attempt in the sending thread, the steps that repeat it until it succeeds.

Offers `Admission`, `acquire`, `release` and `perform`.
Must not know: how a thread or a task waits.
"""
