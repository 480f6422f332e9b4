"""An interrupt wherever CPython looks for signals: on entering functions, after calls, at jumps back."""

from __future__ import annotations

import asyncio
import dis
import gc
import sys
from collections import Counter
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

import singleflight

HOME = str(Path(singleflight.__file__).parent)
CHECKS = ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD")
IF_TAKEN = "POP_JUMP_BACKWARD_IF"


@cache
def checks(code):
    """The offsets of a function's instructions with which CPython looks for signals.

    Each with the offset below which the next instruction is, if it does: a conditional jump is to be taken.
    """
    found = {each.offset: sys.maxsize for each in dis.get_instructions(code) if each.opname in CHECKS}
    jumps = (each.offset for each in dis.get_instructions(code) if each.opname.startswith(IF_TAKEN))
    return found | {offset: offset for offset in jumps}


class AtCheck:
    """Raises KeyboardInterrupt at the n-th check of this thread inside the library.

    Each place counts only so many `times`, where they are given.
    """

    def __init__(self, number, times=None):
        self.left, self.struck, self.times, self.seen = number, None, times, Counter()
        self.last = {}  # the last instruction of each frame, by its identity

    def trace(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        frame.f_trace_opcodes = True
        self.last[id(frame)] = frame.f_lasti  # on entering it, or on resuming a generator
        return self.local

    def local(self, frame, event, argument):
        if event == "exception":  # no signal is handled between what raised and its handler
            self.last[id(frame)] = None
        if event != "opcode" or self.struck is not None:
            return self.local
        last, self.last[id(frame)] = self.last.get(id(frame)), frame.f_lasti
        if frame.f_lasti < checks(frame.f_code).get(last, 0):
            self.seen[frame.f_code, last] += 1
            if self.times is not None and self.seen[frame.f_code, last] > self.times:
                return self.local
            self.left -= 1
            if self.left < 0:
                self.struck = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                sys.settrace(None)
                frame.f_trace = None
                raise KeyboardInterrupt
        return self.local


def struck(number, run, times=None):
    """Run it with an interrupt at the n-th check; where that was, or None when it was over before."""
    at = AtCheck(number, times)
    gc.disable()  # what the collector runs is not to be struck
    sys.settrace(at.trace)
    try:
        run()
    except (KeyboardInterrupt, ValueError):
        pass
    finally:
        sys.settrace(None)
        gc.enable()
    return at.struck


@contextmanager
def struck_task(number, coroutine):
    """Run a task with an interrupt at the n-th check, and let its loop go on: where that was, the task."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    task = loop.create_task(coroutine)
    where = struck(number, lambda: loop.run_until_complete(task), times=1)
    for _ in range(20):  # a task that is interrupted stops its loop
        loop.call_soon(loop.stop)
        loop.run_forever()
    yield where, task
    if task.done() and not task.cancelled():
        task.exception()  # seen
    for left in asyncio.all_tasks(loop):
        left.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()


needs_opcodes = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="opcode tracing reaches few frames there"
)
