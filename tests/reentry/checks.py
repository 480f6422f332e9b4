"""An interrupt wherever CPython looks for signals: on entering functions, after calls, at jumps back."""

from __future__ import annotations

import dis
import sys
from functools import cache
from pathlib import Path

import pytest

import singleflight

HOME = str(Path(singleflight.__file__).parent)
CHECKS = ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD")


@cache
def checks(code):
    """The offsets of a function at which a signal may be handled."""
    found, before = set(), None
    for instruction in dis.get_instructions(code):
        if before in CHECKS:
            found.add(instruction.offset)
        if instruction.opname != "CACHE":
            before = instruction.opname
    return found


class AtCheck:
    """Raises KeyboardInterrupt at the n-th check of this thread inside the library."""

    def __init__(self, number):
        self.left, self.struck = number, None

    def trace(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        frame.f_trace_opcodes = True
        return self.local

    def local(self, frame, event, argument):
        if event == "opcode" and self.struck is None and frame.f_lasti in checks(frame.f_code):
            self.left -= 1
            if self.left < 0:
                self.struck = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                sys.settrace(None)
                frame.f_trace = None
                raise KeyboardInterrupt
        return self.local


def struck(number, run):
    """Run it with an interrupt at the n-th check; where that was, or None when it was over before."""
    at = AtCheck(number)
    sys.settrace(at.trace)
    try:
        run()
    except (KeyboardInterrupt, ValueError):
        pass
    finally:
        sys.settrace(None)
    return at.struck


needs_opcodes = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="opcode tracing reaches few frames there"
)
