"""The rows: the tables with their triggers, the statements on them, what must hold among them.

Offers `Ledger`, the listings, the fast statements, the checks of integrity. All of it works inside a transaction.
Must not know: files, connections, or when a transaction begins.
"""
