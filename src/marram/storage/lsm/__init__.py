"""The lsm engine: memtables, and a leveled tree of sorted tables below them.

Writes go to a memtable, which is flushed whole into one table of level 0; compactions move tables
down and drop what is hidden. A table has a key once. Large values are in blobs, which tables point
into, and which compactions leave alone until they are mostly garbage. A snapshot holds the version
it began with, and a file stays while a version that is alive names it; so nothing else is kept for
it.

The policy and the rules are pure: no files, no clock, no randomness, no threads. What runs jobs and
makes their edits durable calls them, never the other way around.

version.py     the tables by level, immutable
edit.py        the bytes of a change of them
coverage.py    range deletions side by side
options.py     how a tree is kept in shape
shape.py       what each level should hold, how far it is past that, what is owed
job.py         one thing to do: its tables, its output, where the output is cut
picker.py      a version -> the next job
merge.py       sorted sources -> what a reader sees, what a compaction keeps
simulator.py   a policy's write, space and read amplification, without a file

The rest touches files, through env, or memory that several threads share.

manifest.py    the manifest file: which tables there are, as a listing and the edits after it
cache.py       open tables and their blocks, within limits
blob.py        the file of large values, and the pointer to one
blobs.py       the ways of values: into blobs, to readers, through a merge
tables.py      look-ups and scans over a version, and when a file may go
compaction.py  runs a job: table files -> table files
worker.py      the helper process that does it
compactor.py   when jobs are picked, run and installed
memtable.py    what was written since the last flush
flush.py       a memtable -> a table
generation.py  the order of a flush: memtables, tables, a new manifest
counts.py      exact counts of keys
pin.py         scans over memtables and tables; a snapshot's view
space.py       one keyspace, as the layers above see it
engine.py      the newest state and how it changes: all of this as one map
budget.py      the shares of one memory budget
stats.py       the figures
verify.py      the checks of a tree's files
"""
