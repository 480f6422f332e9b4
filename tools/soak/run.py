"""Soaks the library: `python tools/soak/run.py --seconds 60 --seed 1`."""

from __future__ import annotations

import argparse
import faulthandler
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.soak.load import Soak, SoakFailed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="what the operations are drawn from (default 1)")
    parser.add_argument("--operations", type=int, default=200, help="of each actor in a round (default 200)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    faulthandler.dump_traceback_later(options.seconds + 180, exit=True)
    try:
        print(Soak(options.seed, options.operations).run(seconds=options.seconds))
    except SoakFailed as error:
        print(error)
        print(f"again: python tools/soak/run.py --seconds {options.seconds:g} --seed {options.seed}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
