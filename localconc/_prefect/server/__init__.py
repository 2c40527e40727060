"""The server as this process sees it: its address, Prefect's client for it, the errors that both can make.

Offers `Connection`, `address_in_settings`, `Unreachable`, `Refused` and the texts of errors.
Must not know: threads, leases, or what its answers are used for.
"""
