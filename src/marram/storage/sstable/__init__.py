"""Sorted tables: immutable files of rows in key order (docs/formats/sstable.md).

format.py   the file around its blocks: header, footer, the sealed block, where things are
block.py    what is inside blocks: rows in columns, the index, name -> value maps
filter.py   which keys a table certainly does not hold
ranges.py   range deletions, beside the rows
writer.py   rows in order -> a file
frozen.py   the rows of a map that changes no more, where they are
packing.py  those as blocks, many at once
reader.py   a file -> rows, by key or in order
"""
