"""How a call waits: its steps, the threads and tasks that take them, the mailboxes in which they receive wakeups.

Offers `threads.acquire`, `threads.release`, `threads.run` and the same for `tasks`; mailboxes and the notifier.
Must not know: SQL, or how a request is admitted.
"""
