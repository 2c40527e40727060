"""What operators do: declare limits, read the store, examine or repair a home.

Offers functions of an `Engine`, which try again while the store is busy; `doctor.examine` takes a directory.
Must not know: the order of the queue.
"""
