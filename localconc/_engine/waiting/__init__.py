"""How a call waits: its steps, what takes them in a thread or a task, the mailboxes in which they receive wakeups.

Offers `threads.acquire`, `threads.release`, `threads.run` and the same for `tasks`; mailboxes and the notifier.
Must not know: SQL, or how a request is admitted.
"""
