"""How questions reach the server: the sending thread, the steps of a call, the wakeups between calls.

Offers `Sender`, `Question`, `threads.run`, `tasks.run`, the steps that these two carry out, and `Wakeups`.
Must not know: what is asked.
"""
