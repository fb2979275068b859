"""Replication: the machines on both ends of a replica's connection; no sockets, no files, no clock.

Read in this order: messages.py (what the two ends say), codec.py (its bytes), effects.py (what a
machine asks of its shell), primary.py (Feed: one replica's connection), agreement.py (where two
histories part), replica.py (Follower), acks.py (when a write has reached its ack level), lag.py.
The protocol's document is docs/protocols/replication.md.
"""
