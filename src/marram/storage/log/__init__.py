"""The write-ahead log: framing, writing, reading, telling a torn tail from damage."""
