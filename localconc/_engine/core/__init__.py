"""Values, functions of values: rules, records, checked calls, views, history, errors; the clock.

Every other package may use them.
Must not know: the database, processes, or how a caller waits.
"""
