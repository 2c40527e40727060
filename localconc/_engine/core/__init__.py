"""Pure parts: rules, records, checked calls, arguments, the clock, views, errors, the environment.

Offers plain values and functions of values; every other package may use them.
Must not know: the database, processes, or how a caller waits.
"""
