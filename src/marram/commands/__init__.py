"""The one command table: what every command is called, takes, touches and does.

Owns names, arity, flags, key positions, documentation and the pure handlers; not sessions,
sockets, the log or the clock. RESP dispatch, `COMMAND`, the shell's completion and the protocol
document all read the same rows (table.py).
"""
