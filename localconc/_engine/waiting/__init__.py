"""How a call waits: its steps, the threads or tasks that take them, the mailboxes in which these receive wakeups.

Offers `threads.acquire`, `threads.release`, `threads.run`; the first two of `tasks`, too; mailboxes and the notifier.
Must not know: SQL, or how a request is admitted.
"""
