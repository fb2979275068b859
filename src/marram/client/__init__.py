"""Clients: the methods of the embedded DB over a server, and both of them for asyncio.

Owns connections and the mapping of methods to commands; not the bytes of the protocol
(protocol/resp_client.py), not what a command does (marram.commands).

    url.py          marram://host:port/keyspace
    calls.py        each method as commands out and a reply in: the part without sockets
    refusals.py     error replies as exceptions of marram.errors
    connection.py   one blocking connection, and the pool of them
    sync.py         connect(): RemoteDB
    stream.py       one asyncio connection, shared by every task
    aio.py          connect_async(): AsyncRemoteDB
    local_aio.py    open_async(): AsyncDB, the embedded store without blocking the loop
    opening.py      what open_async and connect_async return: await it, or enter it

Threading: RemoteDB from any thread; the asyncio classes on the loop that opened them.
"""

from __future__ import annotations
