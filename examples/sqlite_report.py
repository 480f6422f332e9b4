"""An expensive report on SQLite: twenty threads ask for it at once, one query runs, and a sale renews it."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path

from command_line import parser_for

from singleflight import single_flight_ttl


class Reports:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.queries = 0

    @single_flight_ttl(key=lambda self, region: (str(self.path), region), ttl=300)
    def revenue(self, region: str) -> tuple[int, float]:
        """Sales and revenue of a region: slow enough to be worth sharing."""
        self.queries += 1
        with closing(sqlite3.connect(self.path)) as database:
            row = database.execute("SELECT count(*), total(amount) FROM sales WHERE region = ?", (region,))
            count, total = row.fetchone()
        return int(count), float(total)

    def sell(self, region: str, amount: float) -> None:
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute("INSERT INTO sales VALUES (?, ?)", (region, amount))
        self.revenue.invalidate(region)  # a report that was being made at this moment is not kept either


def main() -> None:
    parser_for(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reports = Reports(Path(folder) / "sales.db")
        with closing(sqlite3.connect(reports.path)) as database, database:
            database.execute("CREATE TABLE sales (region TEXT, amount REAL)")
            rows = (("EU" if number % 3 else "US", number / 7) for number in range(300_000))
            database.executemany("INSERT INTO sales VALUES (?, ?)", rows)
        threads = [threading.Thread(target=reports.revenue, args=("EU",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        count, total = reports.revenue("EU")
        print(f"20 threads asked for the EU report: {reports.queries} query, {count} sales, {total:,.2f}")
        reports.sell("EU", 1000.0)
        count, total = reports.revenue("EU")
        print(f"after a sale it is made again:      {reports.queries} queries, {count} sales, {total:,.2f}")
        print(reports.revenue.explain("EU"))


if __name__ == "__main__":
    main()
