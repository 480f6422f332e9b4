"""Stresses the library on this interpreter: `python tools/stress/run.py --seconds 60`.

With a global interpreter lock threads take turns as often as they can. Without one (`python3.14t`) they run
at the same time, and the task says whether that was so.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import sysconfig
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.stress import calls, surroundings  # noqa: F401  # they add their cases
from tools.stress.together import CASES


def describe() -> str:
    """This interpreter, and whether its threads run at the same time."""
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    built = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "usual"
    return f"{sys.version.split()[0]}, {built} build, global interpreter lock {'on' if enabled else 'off'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all cases together (default 60)")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; default all")
    options = parser.parse_args()
    warnings.simplefilter("error")
    faulthandler.dump_traceback_later(options.seconds + 180, exit=True)
    sys.setswitchinterval(1e-5)
    print(describe())
    chosen = options.cases or list(CASES)
    failed = 0
    for name in chosen:
        try:
            CASES[name](options.seconds / len(chosen))
        except BaseException:
            failed += 1
            print(f"FAILED {name}")
            traceback.print_exc()
        else:
            print(f"passed {name}")
    print(describe())
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
