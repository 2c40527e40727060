"""How a call waits: its steps, threads, tasks, and the mailboxes in which they receive wakeups."""
