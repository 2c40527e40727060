"""The files of an open store: which ones this process has open, what their locks say, how long the log is.

Offers `OpenFiles`, `Anchors`, the index of the log, checkpoints, and logs that are lost.
Must not know: rows, or what a transaction is for.
"""
