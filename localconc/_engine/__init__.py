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
3.  `waiting.threads.acquire` tries one statement (4 and 5). If that fails, it queues the request by another one (6 to
    8). Tasks, and calls that count their tries or may wait for their own caller, take the steps of a call in place of
    that (`waiting.steps.acquire`). So does the first call of a process, which opens the store before
    (`store.database.ensure_open` and `_open`), and joins it (`engine._on_open`, `liveness.membership.join`).

The caller first tries one statement, which is enough if a slot is free and there is no queue.

4.  `acquiring.acquisitions.acquire_fast` looks in `fast_path.FastPaths` whether such a request was admitted at once the
    last time. `acquisitions._acquire_one` calls `holding.holdings.begin`, which makes a `Handle` with a finalizer, and
    notes the grant in `holdings.grants`. Both come before the statement, so that an interrupt in between is undone.
5.  `store.database.execute_fast` runs `ACQUIRE_FAST`, an INSERT into `slots`. The trigger `counted` lets it insert a
    row only if there is room and no queue. Here there is no room, so `_acquire_one` calls `holdings.forget` to drop the
    note. (`store.files.anchors.are_at_hand` has shown before that SQLite writes to its own files, and would not wait.)

Then the request joins the queue, by one statement.

6.  `waiting.threads._acquire_by_a_short_wait` begins with a new `Handle`, and calls `waiting.mailboxes.pool.take`,
    which returns a mailbox (a socket for the wakeup), perhaps one of an earlier wait (`is_reusable`).
7.  `acquisitions.enqueue_fast` knows from `FastPaths.find_to_queue` that the request is simple. It calls
    `store.database.execute_either_fast`, which runs `ENQUEUE_FAST`, an INSERT into `waiters`: with the text of the
    request (`core.calls.Request.to_text`), the mailbox's `address` and a secret. If a slot has come free, that inserts
    nothing, and `ACQUIRE_FAST` acquires. Because it waits, `FastPaths.note_contention` switches 4 and 5 off until such
    a request is admitted at once. If the fast statements don't apply (several limits, decay, a pause, a limit that this
    process has not met, or that has changed), `acquisitions.try_acquire` calls `queue.admission` and `queue.turns`,
    which have all the rules. If the store is busy, `threads._enqueue_soon` and `waiting.pauses.retry_while_busy` try
    again.
8.  `core.clock.pause` and `waiting.mailboxes.mailbox.wait` sleep until a datagram comes, or for 70 ms.

Meanwhile the holder leaves its block. One statement releases its slot and admits the waiter.

9.  `sync.concurrency.__exit__`, `_release` and `waiting.threads.release` call `acquisitions.release_fast`. If the slots
    were held for more than half a millisecond, or a request waited for them lately, it begins with `HAND_OVER`; else
    with `RELEASE_FAST`, which does nothing if there is a queue. Where neither applies, `release_by_rules` does it.
10. `HAND_OVER` is an UPDATE of the first waiter's row, which names the holder. The trigger `admitted` marks the row of
    the holder as released (the trigger `released` moves it to the history), inserts that of the new one, and deletes
    the waiter's, with its place in the queue.
11. Then `release_fast` sends the wakeup, with the secret of the waiter's row (`waiting.mailboxes.notifier.send`), and
    drops the holder's own record (`holdings.forget`).

The waiter wakes up, and needs no transaction.

12. `mailbox._receive` and `from_bytes` read the datagram, and `take` returns it to `_acquire_by_a_short_wait`.
13. `acquisitions.accept_wakeup` compares the secret. `liveness.owner.acknowledge` writes that this process has picked
    up the grant, so that no other process takes it back. `holdings.hold` notes the grant.
14. `pool.put` keeps the mailbox for the next wait, and `sync.concurrency.__enter__` returns an
    `holding.occupancy.Occupancy`. The block runs. It ends as the holder's did, in 9 to 11.

After 70 ms (a task: 1 s), or at the deadline, the wait goes on in `waiting.wait.Wait`, in steps that
`waiting.threads.run_steps` drives: it sleeps for each `Park` or `Backoff` that they yield. The wait watches the
processes in front (`liveness.reaper`), polls its own row (`acquiring.queued.check`), and acts for dead or stopped
processes. It spares a poll if nothing was committed since the last one (`store.store.SparedLooks`). With many processes
in front that act, it only looks for its own outcome. If many threads of a process wait, each poll is for all of them. A
task takes the same steps as a thread: `waiting.tasks` awaits at each pause, and one `waiting.dispatcher` receives the
wakeups of a whole event loop.

Do not change these lightly:

- The steps of a call are written once, as generators. Threads, tasks and the tests' simulation drive the same ones.
  Only the short wait of a thread stands beside them: a thread that has slept pays microseconds for each function.
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
