"""A Prefect server as the keeper of the limits: `LOCALCONC_HOME=prefect:`.

All state is the server's; plain Prefect clients share it. From the bottom to the top, and each imports only from those
above it in this list:

1. `shared`: all that this package takes from the machine's engine.
2. `server/`: where the server is, the calls of Prefect's client, what their answers mean, what can go wrong.
3. `asking/`: one thread, which no signal interrupts, asks the server all questions of the process; threads and tasks
   wait for its answers.
4. `holding/`: what this process holds. The same thread renews its leases and releases what nothing refers to any more.
5. `acquiring/`: one attempt to take slots, and the steps of a call, which repeat it.
6. `administration`: what operators set and read.
7. `keeper`: these parts put together, the server's side of `localconc._keeper`.
8. `keepers`: the keepers of this process, which see to forks and to its exit.
9. `doctor`: whether all is well with the server.

The caller gets the same `Occupancy` as on this machine.
"""

from localconc._prefect.keepers import close_keepers, open_keeper, server_address

__all__ = ["close_keepers", "open_keeper", "server_address"]
