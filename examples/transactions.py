"""Money moves between accounts from four threads; none is made or lost."""

import tempfile
import threading

import marram

ACCOUNTS = [b"account:%d" % number for number in range(5)]


def transfer(db: marram.DB, source: bytes, target: bytes, amount: int) -> None:
    """Move `amount`, again and again until no other writer came in between."""
    while True:
        try:
            with db.transaction() as t:
                t[source] = b"%d" % (int(t[source]) - amount)
                t[target] = b"%d" % (int(t[target]) + amount)
            return
        except marram.Conflict:
            continue


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, marram.open(f"{scratch}/bank") as db:
        db.put_many((account, b"100") for account in ACCOUNTS)

        def work(number: int) -> None:
            for step in range(50):
                source = ACCOUNTS[(number + step) % 5]
                transfer(db, source, ACCOUNTS[(number + 2 * step + 1) % 5], 1)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        with db.snapshot() as now:  # one position for all five
            total = sum(int(now[account]) for account in ACCOUNTS)
        print("total:", total)


if __name__ == "__main__":
    main()
