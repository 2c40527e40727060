"""The file: its connection, its transactions, its rows, its recovery.

Offers `Store.transact(work)` and `Store.read(work)`, which call the work with a `Transaction` or a `Ledger`; the fast
statements; and `Recovery`. All SQL stands here.
Must not know: which processes live, which waiter is next, or how a caller waits.
"""
