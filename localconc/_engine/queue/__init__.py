"""Which request is admitted next: the rules of limits applied to the rows, inside one transaction.

Offers functions of a `Transaction`: resolve, grant, release and admit requests; define, update and delete limits; clean
up after callers, processes and boots that are gone; say why a request is not admitted.
Must not know: connections, sockets, or how a caller waits. So any process can act for another one.
"""
