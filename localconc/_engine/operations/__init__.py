"""What operators do: declare limits, read the store, examine or repair a home.

Offers functions of an `Engine`, each of which runs one transaction on the store; `doctor.examine` takes a directory.
Must not know: how a caller waits for slots.
"""
