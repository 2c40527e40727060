"""Which processes live: the locked file of each, and how a waiter learns of a death."""
