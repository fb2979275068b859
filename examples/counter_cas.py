"""A counter by compare-and-set: read, compute, write only if nobody was faster."""

import tempfile

import marram


def increment(db: marram.DB, key: bytes) -> int:
    while True:
        seen = db.get(key)
        new = int(seen or b"0") + 1
        if db.compare_and_set(key, expected=seen, new=b"%d" % new):
            return new


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, marram.open(f"{scratch}/data") as db:
        for _ in range(10):
            last = increment(db, b"visits")
        print("visits:", last)


if __name__ == "__main__":
    main()
