"""A node's part in replication: who takes the writes, and what its links do to the store.

Read in this order: record.py (what survives a restart), work.py (what may block), levels.py (ack
levels), downlink.py (a replica, at its upstream), uplink.py (the upstream, at its replica), role.py
(Replication: the node's part that holds them together), figures.py (what it tells about itself).

The state machines are marram.replication's; sockets are the server's (server/replication.py).
"""
