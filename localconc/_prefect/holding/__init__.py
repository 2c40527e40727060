"""What this process holds on the server: leases, their renewal, their release, their events.

Offers `Leases`, `Hold` and the notices.
Must not know: how slots are acquired.
"""
