"""Wakeups: the mailboxes in which waiters receive them, the notifier that sends them.

Offers `Mailbox`, `MailboxPool`, `Notifier`. A wakeup is a hint, and any of them may be lost.
Must not know: the store, or what a waiter does with a wakeup.
"""
