"""The engine: which request is admitted, which one waits, which one is next.

The packages, from the bottom: `core` (values), `homes` (the directory), `store` (the file), `queue` (which request is
next), `liveness` (which processes live), `events`, `holding` (what this process holds), `acquiring` (one try to acquire
or release). `engine` puts one home together. Above it are `waiting` (how a call waits), `operations` (what operators
do), `machine` and `registry`. Imports only point down this list, and each package says what it must not know. `machine`
is this engine as a keeper of limits; `localconc._prefect` is the other keeper, a Prefect server.

This is the way of a slot from `with concurrency("db")` to its row and back, while another process holds the only slot.
It names the functions that matter, in order. A function without a file is in the file of the one before it.

The caller asks.

1.  `sync.concurrency.__init__` calls `core.calls.checked_call`, which checks the arguments, or finds that it has
    checked the same ones before.
2.  `sync.concurrency.__enter__` and `_acquire` get a keeper from `registry.keeper_unless_disabled`: the `Machine` of
    the home that the environment names now, or the server. A `Machine` has functions of `waiting` bound to its engine.
3.  `waiting.threads.acquire` tries one statement (4 and 5). If that fails, it takes the steps of a call (6 to 9, and 13
    to 15). The first call of a process opens the store before that (`store.database.ensure_open` and `_open`), and
    joins it (`engine._on_open`, `liveness.membership.join`).

The caller first tries one statement, which is enough if a slot is free and there is no queue.

4.  `acquiring.acquisitions.acquire_fast` looks in `fast_path.FastPaths` whether such a request was admitted at once the
    last time. `acquisitions._acquire_one` calls `holding.holdings.begin`, which makes a `Handle` with a finalizer, and
    notes the grant in `holdings.grants`. Both come before the statement, so that an interrupt in between is undone.
5.  `store.database.execute_fast` runs `ACQUIRE_FAST`, an INSERT into `slots`. The trigger `counted` lets it insert a
    row only if there is room and no queue. Here there is no room, so `_acquire_one` calls `holdings.forget` to drop the
    note. (`database._is_intact` and `_is_held_up` have shown before that SQLite writes to its own files, and would
    not wait.)

Then the request joins the queue, in one transaction.

6.  `waiting.threads.run_steps` drives the generator `waiting.steps.acquire`, which begins with a new `Handle`.
7.  `steps._terms` calls `waiting.mailboxes.pool.take`, which returns a mailbox (a socket for the wakeup), perhaps one
    of an earlier wait (`mailbox.is_reusable`).
8.  `acquisitions.try_acquire` and `_acquire_or_enqueue` run `fast_path.enqueue_or_acquire` in a transaction
    (`store.database.transact`, `_ready`). It inserts a row into `waiters`, with the text of the request
    (`core.calls.Request.to_text`), the mailbox's `address` and a secret; or it acquires, if a slot has come free.
    Because it waits, `fast_path.FastPaths.note_contention` switches 4 and 5 off until a request on the limit is
    admitted at once. If the fast statements don't apply (several limits, decay, a pause, a limit that this process has
    not met, or that has changed), `acquisitions._try_by_rules` calls `queue.admission` and `queue.turns`, which have
    all the rules.
9.  The generator yields a `Park` until the moment of `steps._first_look_at`. (If the store is busy, it yields a
    `Backoff` and tries again.) `threads._pause`, `core.clock.pause` and `waiting.mailboxes.mailbox.wait` sleep until a
    datagram comes, or until that moment.

Meanwhile the holder leaves its block. One transaction releases its slot and admits the waiter.

10. `sync.concurrency.__exit__`, `_release` and `waiting.threads.release` call `acquisitions.release_fast`. It returns
    False for slots that were held for more than half a millisecond, because a waiter is likely; its one statement would
    do nothing if there is a queue. Then they call `acquisitions.release`.
11. `release` runs `fast_path.release_and_admit` in a transaction. It marks the holder's row as released, and the first
    waiter's row as granted. Triggers delete both rows, and insert the new holder's row and a row of the history.
12. After the commit, `acquisitions.release` drops the holder's own record (`holdings.forget`), and sends the wakeup,
    with the secret of the waiter's row.

The waiter wakes up, and needs no transaction.

13. `mailbox._receive` and `from_bytes` read the datagram, and `take` hands it to `waiting.threads.run_steps`, which
    sends it into the generator.
14. `acquisitions.accept_wakeup` compares the secret. `liveness.owner.acknowledge` writes that this process has picked
    up the grant, so that no other process takes it back. `holdings.hold` notes the grant.
15. `pool.put` keeps the mailbox for the next wait (`mailbox.is_reusable`), and `sync.concurrency.__enter__` returns an
    `holding.occupancy.Occupancy`. The block runs. It ends as the holder's did, in 10 to 12.

After 70 ms (a task: 1 s), or at the deadline, the wait goes on in `waiting.wait.Wait`. It watches the processes in
front (`liveness.reaper`), polls its own row (`acquiring.queued.check`), and acts for dead or stopped processes. It
spares a poll if nothing was committed since the last one (`store.store.SparedLooks`). If many threads of a process
wait, each poll is for all of them. A task takes the same steps as a thread: `waiting.tasks` awaits at each pause, and
one `waiting.dispatcher` receives the wakeups of a whole event loop.

Do not change these lightly:

- The steps of a call are written once, as generators. Threads, tasks and the tests' simulation drive the same ones.
- Rows decide. A wakeup is a hint to look, or proves a grant by the secret of the row. A waiter also polls.
- A locked file means that its owner lives, unless the process table says that it ended: a child that C code forked may
  keep the lock (`liveness.owner.is_alive`). News from inotify or a pidfd is only a reason to look. There is no lease
  and no heartbeat.
- A busy store raises `Busy` at once, so no thread holds one lock while it waits for another.
- Admission is functions of a transaction, so any process can act for one that is stopped or dead.
- `core.rules` is pure arithmetic on one moment, `empty_at`, not on a counter that every write would round.
- Triggers keep the totals of the holders' rows, and one INSERT, which a trigger guards, acquires a slot.
- A finalizer is C code until another thread has started, so no signal's exception can strike inside it.
- A clock has five methods.
- Descriptors on the files of a store are closed after every connection to it, however a call ends: to close one drops
  the locks that SQLite believes it holds (`store.files.opened`).
- Forks: `registry` and `engine` close the store before one, and both sides open it anew. `_locks.ForkLocks` and
  `lock_of_process` see to the locks, `store.cut_off` to children that C code forked inside SQLite.
"""
