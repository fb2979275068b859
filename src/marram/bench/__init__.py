"""Measuring: a load generator, and marram beside what its users would pick instead.

Owns what is measured, how, and how results are kept and drawn; not arguments (cli/bench.py).

    histogram.py          latencies by bucket, with a bounded error
    keys.py               which key is next: uniform, zipfian, latest, in order
    workload.py           what is asked, YCSB's mixes, requests encoded ahead
    wire.py               what a protocol needs; wire_resp.py, wire_http.py, wire_frames.py;
                          target.py reads the URL that says which
    driver.py             connections that keep requests under way: as many as can be (closed loop),
                          or at a rate (open loop); pacing.py wakes it on time
    generator.py          a load from beginning to end, in one process or several (worker.py)
    programs.py           server processes: marram, redis-server, valkey-server; redis-benchmark
    compare_servers.py    marram beside them, in alternating pairs
    stores.py             embedded stores behind one face
    compare_embedded.py   marram's engines beside them, in alternating rounds
    replica_set.py        a primary and its replicas, as processes
    measure_replication.py  what these cost and give; with lag.py and failover.py
    machine.py            what a figure was measured on
    results.py            results as JSON;  report.py on a terminal;  plot.py as PNG

The package goes past marram.env to the machine's own clocks, files and processes: they are what it
measures. Random numbers are seeded, so that a run can be repeated.

Threading: each module says.
"""

from __future__ import annotations
