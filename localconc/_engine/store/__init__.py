"""The file: its connection, its transactions, its rows, its recovery.

Offers `Store.transact(work)` and `Store.read(work)`, whose work gets a `Transaction` or a `Ledger`; the fast statements
of the ledger; and `Recovery`. All SQL stands here.
Must not know: which processes live, who is admitted next, or how a caller waits.
"""
