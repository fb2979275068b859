"""Bytes to values and back, stateless: batches and checksums."""
