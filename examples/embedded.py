"""A durable dictionary: open a directory, use it, close it, find everything again."""

import sys
import tempfile

import marram


def main(directory: str) -> None:
    with marram.open(directory) as db:
        db[b"user:1"] = b"Alice"
        db.put(b"session:9", b"token", ttl=3600.0)
        db.put_many({b"user:2": b"Bob", b"user:3": b"Carol"})

        with db.batch() as batch:  # atomic
            batch.put(b"user:4", b"Dan")
            batch.delete(b"user:2")

    with marram.open(directory) as db:
        for key, value in db.scan(prefix=b"user:"):
            print(key.decode(), value.decode())
        remaining = db.ttl(b"session:9")
        assert remaining is not None
        print("session ends in an hour:", 3590 < remaining <= 3600)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(f"{scratch}/data")
