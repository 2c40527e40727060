"""A Prefect server as the keeper of the limits: `LOCALCONC_HOME=prefect:`.

All state is the server's; plain Prefect clients share it. The way of a call through these modules:

1. `keeper`: what the faces and the registry know, the server's side of `localconc._keeper`.
2. `acquisitions`: the steps of a call as generators, which yield a question to ask or a pause to make.
3. `threads` and `tasks` carry out what the steps yield, by blocking and by awaiting.
4. `sender`: one thread, which no signal interrupts, asks the server all questions of the process.
5. `admission`: one attempt, as that thread makes it: which limits are enforced, and are their slots free.
6. `leases`: what this process holds; the same thread renews the leases and releases what nobody holds any more.
7. `connection`: the calls of Prefect's client, and what their answers mean. `address`: where the server is.

`notices` are events and warnings for this process, and `wakeups` are hints between its threads and tasks.
`administration` and `doctor` are what operators use, `errors` is how troubles are told, and `shared` is all that this
room takes from the machine's engine. The caller gets the same `Occupancy` as on this machine.
"""

from localconc._prefect.keeper import close_keepers, open_keeper, server_address

__all__ = ["close_keepers", "open_keeper", "server_address"]
