"""The engine: who may acquire a slot, who waits, who is next.

The packages, from the bottom: `core` (values), `homes` (the directory), `store` (the file), `queue` (who is admitted),
`liveness` (which processes live), `holding` (what this process holds), `acquiring` (one try to acquire or release).
`engine` puts one home together. Above it are `waiting` (how a call waits), `operations` (what operators do), `machine`
and `registry`. Imports only point down this list, and each package says what it must not know. `machine` is this engine
as a keeper of limits; `localconc._prefect` is the other one, a Prefect server.

This is the way of a slot from `with concurrency("db")` to its row and back, while another process holds the only slot.
It names every function in order. One without a file stands in the same file as the one before it.

The caller asks.

1.  `sync.concurrency.__init__` and `core.calls.checked_call` check the arguments, or find them checked before.
2.  `sync.concurrency.__enter__`, `_acquire` and `registry.keeper_unless_disabled` find the `Machine` of the home that
    the environment names now, or the server. A `Machine` has the functions of `waiting` bound to its engine.
3.  `waiting.threads.acquire` tries one statement. If that fails, it takes the steps of a call.

One statement is enough if a slot is free and nobody waits.

4.  `acquiring.acquisitions.acquire_fast` calls `holding.holdings.begin`, which makes a `Handle` (its finalizer releases
    what is dropped), and `keep`, which notes the grant. Both come before the row, so that an interrupt in between is
    undone.
5.  `store.database.execute_fast` and `_is_intact` run `ACQUIRE_FAST`, an INSERT; the trigger `guarded` lets it insert a
    row only if there is room and no queue. Here there is no room, so `holdings.forget` drops the note again.

The request joins the queue, in one transaction.

6.  `waiting.threads.run_steps` drives the generator `waiting.steps.acquire`. The generator yields a `Backoff` if the
    store is busy, or a `Park` if the request is queued. The thread sleeps, and sends in the wakeups that came.
7.  `waiting.mailboxes.pool.take` returns a mailbox, the socket for the wakeup. Its address will be in the waiter's row.
8.  `acquisitions.try_acquire`, `_acquire_or_enqueue`, `store.database.transact` and `fast_path.enqueue_or_acquire`
    insert a row into `waiters`, with the request as `core.calls.to_text` writes it, or acquire if a slot has come free.
    If the fast statements don't apply (several limits, decay, a pause, a new definition), `_try_by_rules` asks
    `queue.admission`, which has all the rules.
9.  `waiting.threads._pause`, `core.clock.pause` and `waiting.mailboxes.mailbox.wait` sleep until a datagram or a
    moment.

Meanwhile the holder leaves its block: this releases its slot and admits the waiter, in one transaction.

10. `sync.concurrency.__exit__`, `_release`, `waiting.threads.release` and `acquisitions.release_fast` try one
    statement, which does nothing if there is a queue. Then comes `acquisitions.release`.
11. `acquiring.fast_path.release_and_admit` marks the holder's row as released and the first waiter's row as granted.
    Triggers delete both rows, and insert the new holder's row and the line of the history.
12. After the commit, `acquisitions._follow_up` sends the wakeup, with the secret of the waiter's row; `_released` and
    `holdings.forget` drop the holder's own record.

The waiter wakes up, and needs no transaction.

13. `waiting.mailboxes.mailbox._receive`, `from_bytes` and `take` give the wakeup to the steps.
14. `acquisitions.accept_wakeup` compares the secret. `liveness.owner.acknowledge` notes that the grant was picked up,
    so that nobody takes it back as one of a stopped process. `holdings.hold` notes the grant.
15. `waiting.mailboxes.pool.put` keeps the mailbox for the next wait, and `sync.concurrency.__enter__` returns an
    `holding.occupancy.Occupancy`. The block runs. It ends as the holder's did, in 10 to 12.

A wait of more than 70 ms goes on in `waiting.wait.Wait`: it watches the processes in front (`liveness.reaper`), looks
at its own row now and then (`queued.check`), and stands in for processes that are dead or stopped. A task takes the
same steps: `waiting.tasks` awaits where a thread sleeps, and one `waiting.dispatcher` receives the wakeups of a whole
event loop.

What may not be changed lightly:

- The steps of a call are written once, as generators. Threads, tasks and the tests' simulation drive the same ones.
- Rows decide. A wakeup is a hint to look, or shows by its secret that a row was granted. A slow poll stands behind it.
- The lock on an owner's file proves that its process lives. A pidfd is only a hint. There is no lease and no heartbeat.
- A store that is busy raises `Busy` at once, so nobody holds one lock while waiting for another.
- Admission is functions of a transaction, so that any process can act for one that is stopped or dead.
- `core.rules` is pure arithmetic on one moment, `empty_at`, and no counter that somebody would have to round.
- Triggers keep the sums of the holders' rows, and to acquire is one INSERT that a trigger guards.
- A finalizer is C code until another thread has started, so that no signal's exception can strike inside it.
- A clock has five methods, and forks are handled in two short places: `registry` and `engine`.
"""
