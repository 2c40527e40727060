"""Wakeups: the mailboxes in which waiters receive them, the notifier that sends them.

Offers `Mailbox`, `MailboxPool`, `Notifier`. A wakeup is a hint: nothing depends on it.
Must not know: the store, or what a waiter does with a wakeup.
"""
