"""The memory engine: the whole map in memory, ordered, with older versions while they are read."""
