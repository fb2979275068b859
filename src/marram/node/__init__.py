"""One runtime: the store, sessions and the command table; no sockets, no event loop of its own.

Owns the turn: which command may run, in which order its checks come, what its reply waits for.
Shells (marram.server, tests) bring bytes, an Env and a Loop.

    node.py          Node: sessions, execute(), tick(); start reading here
    context.py       what control handlers see of it
    rows.py          how a name becomes a row with its counters
    session.py       Session: the state of one client
    transactions.py  MULTI ... EXEC as one batch
    watches.py       WATCH: who is told of a write
    pubsub.py        channels and patterns
    clients.py       who is connected; CLIENT KILL and PAUSE
    upkeep.py        expiry, checkpoints, waiting for positions
    logins.py        AUTH; passwords.py: scrypt, off the loop
    snapshots.py     read views that sessions hold
    settings.py      what can be set, with types; parameters.py: CONFIG's table over it
    info.py          INFO's text; process.py: figures about the process
    slowlog.py, latency.py, monitor.py   what operators look at
    deferred.py      a reply that comes later
    loop.py          what is asked of an event loop
"""
