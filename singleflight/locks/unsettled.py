"""What could not be ended when it should have been; whoever enters the library next ends it.

A call that ends with an exception gives up what it holds. That takes a few calls, and sometimes there is no
room for them: the stack is used up, or memory is, or a second Ctrl-C strikes, or the collector closes a
coroutine while its thread is inside a section of the mutex. Then the caller only *notes* what is to be ended:

    unsettled[what] = end, *arguments

That is one assignment. It makes no call, so nothing can come in between, and it needs no stack. `settle`
later calls `end(*arguments, loose)` under the mutex, for each note. `end` may be repeated, runs no code of
users, and appends to `loose` what is to be done once the mutex is free.

Every driver settles on entering and on leaving, and so does everybody who waits, once a second. So a key is
free again at the latest when the outermost call has left the library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .mutex import inside, mutex

__all__ = ["NOTHING", "Loose", "let_go", "settle", "unsettled"]

Loose = tuple[Callable[[], object] | None, object]
"""What a section leaves for when the mutex is free: something to call, and something to let go of."""

NOTHING: Loose = (None, None)

log = logging.getLogger("singleflight")

unsettled: dict[Any, tuple[Any, ...]] = {}
"""By what is to be ended, by identity. Only single operations of a dictionary, so no lock is needed."""


def settle() -> None:
    """End everything that is noted. Does nothing inside a section: whoever leaves that settles.

    What there is still no room for stays noted. Safe to call from any thread, under no lock.
    """
    if not unsettled or inside():
        return
    loose: list[Loose] = []
    faults: list[Exception] = []
    try:
        with mutex:  # nobody finds the key taken while it is being freed
            for what in list(unsettled):
                end = unsettled.get(what)
                if end is not None:
                    try:
                        end[0](*end[1:], loose)
                    except (RecursionError, MemoryError):
                        break  # there is more room further up the stack
                    except Exception as error:  # of ours: tell it once, instead of raising it in every call
                        faults.append(error)
                    unsettled.pop(what, None)  # last: an interrupt before it only repeats the end
    finally:
        for act, _ in loose:
            if act is not None:
                try:  # in line: `let_go`
                    act()
                except (RecursionError, MemoryError):
                    unsettled[act] = _once_more, act
    for fault in faults:
        log.error("a call could not be ended", exc_info=fault)


def let_go(loose: Loose) -> None:
    """Do what a section left to be done, now or, where there is no room for it, later; call under no lock."""
    act = loose[0]
    if act is not None:
        try:
            act()
        except (RecursionError, MemoryError):
            unsettled[act] = _once_more, act
        except BaseException:  # an interrupt
            unsettled[act] = _once_more, act
            raise


def _once_more(act: Callable[[], object], loose: list[Loose]) -> None:
    loose.append((act, None))
