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
from threading import get_ident
from types import FunctionType

import singleflight

from ..scheduler.lines import codes_within

HOME = str(Path(singleflight.__file__).parent)
CHECKS = ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD")
IF_TAKEN = "POP_JUMP_BACKWARD_IF"
MONITORED = sys.version_info >= (3, 12)  # where `sys.settrace` does not tell of every instruction
_TOOL = 4  # Hypothesis and coverage have others


class AtCheck:
    """Raises KeyboardInterrupt at the n-th check of this thread inside the library, from `start` to `stop`.

    Each place counts only so many `times`, where they are given.
    """

    def __init__(self, number, times=None):
        self.left, self.struck, self.times, self.seen = number, None, times, Counter()
        self.last = {}  # the last instruction of each frame, by its identity

    def passes(self, frame, after):
        """The thread is at a check, after that instruction."""
        self.seen[frame.f_code, after] += 1
        if self.times is not None and self.seen[frame.f_code, after] > self.times:
            return
        self.left -= 1
        if self.left < 0:
            self.struck = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            self.stop()
            frame.f_trace = None
            raise KeyboardInterrupt


class Traced(AtCheck):
    """By `sys.settrace`."""

    def start(self):
        sys.settrace(self.trace)

    def stop(self):
        sys.settrace(None)

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
        if frame.f_lasti < self.checks(frame.f_code).get(last, 0):
            self.passes(frame, last)
        return self.local

    @staticmethod
    @cache
    def checks(code):
        """The offsets of a function's instructions with which CPython looks for signals.

        Each with the offset below which the next instruction is, if it does: such a jump is to be taken.
        """
        instructions = list(dis.get_instructions(code))
        found = {each.offset: sys.maxsize for each in instructions if each.opname in CHECKS}
        jumps = (each.offset for each in instructions if each.opname.startswith(IF_TAKEN))
        return found | {offset: offset for offset in jumps}


class Monitored(AtCheck):
    """By `sys.monitoring`, which is on for the library's functions from the first use to `unwatch`."""

    def start(self):
        watch()
        self.thread = get_ident()
        events = sys.monitoring.events
        sys.monitoring.register_callback(_TOOL, events.PY_START, self.enters)
        sys.monitoring.register_callback(_TOOL, events.PY_RESUME, self.enters)
        sys.monitoring.register_callback(_TOOL, events.INSTRUCTION, self.comes_to)

    def stop(self):
        self.thread = None
        for event in _events():
            sys.monitoring.register_callback(_TOOL, event, None)

    def enters(self, code, offset):
        if self.thread == get_ident():
            self.last[id(sys._getframe(1))] = offset

    def comes_to(self, code, offset):
        if self.thread != get_ident():
            return
        frame = sys._getframe(1)
        last, self.last[id(frame)] = self.last.get(id(frame)), offset
        entry, found, handlers = self.checks(code)
        if last in found and offset not in handlers and offset > entry:
            self.passes(frame, last)

    @staticmethod
    @cache
    def checks(code):
        """Where a function is entered, the offsets of what CPython looks for signals after, and not at.

        The last are the beginnings of handlers: no signal is handled between what raised and its handler.

        The interrupts come after a jump back, not with it: in 3.13 and 3.14 some jumps are without the
        handlers around them (CPython's issue 130279), and an interrupt there is nobody's to handle.
        """
        of = [(each.offset, each.opname) for each in dis.get_instructions(code)]
        entry = next(offset for offset, name in of if name == "RESUME")
        found = frozenset(offset for offset, name in of if name in CHECKS)
        handlers = frozenset(entry.target for entry in dis.Bytecode(code).exception_entries)
        return entry, found, handlers


def _events():
    events = sys.monitoring.events
    return events.PY_START, events.PY_RESUME, events.INSTRUCTION


_watched = []


def watch():
    """Have `sys.monitoring` tell of the library's functions; it takes too long to do it for each strike."""
    if _watched:
        return
    gc.unfreeze()  # what was there when the tests were collected: see conftest.py
    functions = (each for each in gc.get_objects() if isinstance(each, FunctionType))
    # By identity: the scheduler's tests import modules again, and code of the same text is equal.
    codes = {id(code): code for each in functions for code in codes_within(each.__code__)}
    _watched.extend(code for code in codes.values() if code.co_filename.startswith(HOME))
    sys.monitoring.use_tool_id(_TOOL, "checks")
    for code in _watched:
        sys.monitoring.set_local_events(_TOOL, code, sum(_events()))


def unwatch():
    """No more of that."""
    if _watched:
        for code in _watched:
            sys.monitoring.set_local_events(_TOOL, code, 0)
        sys.monitoring.free_tool_id(_TOOL)
        _watched.clear()


_striking = []


@contextmanager
def spared():
    """What this thread does meanwhile is not struck, if anything is to be."""
    for at in _striking:
        at.stop()
    yield
    for at in _striking:
        if at.struck is None:
            at.start()


def struck(number, run, times=None):
    """Run it with an interrupt at the n-th check; where that was, or None when it was over before."""
    at = (Monitored if MONITORED else Traced)(number, times)
    gc.disable()  # what the collector runs is not to be struck
    _striking.append(at)
    at.start()
    try:
        run()
    except (KeyboardInterrupt, ValueError):
        pass
    finally:
        at.stop()
        _striking.remove(at)
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
