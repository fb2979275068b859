"""The durable store: log, engines, generations, and the embedded API over them.

Complete without any network. db.py is what `marram.open` returns; everything else serves it and
the node.
"""
