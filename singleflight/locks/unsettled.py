"""What could not be ended when it should have been; whoever enters the library next ends it.

A call that ends with an exception gives up what it holds. That takes a few calls, and sometimes there is no
room for them: the stack is used up, or memory is, or a second Ctrl-C strikes, or the collector closes a
coroutine while its thread is inside a section of the mutex. Then the caller only *notes* what is to be ended:

    unsettled[what] = end, *arguments

That is one assignment. It makes no call, so nothing can come in between, and it needs no stack. `settle`
later calls `end(*arguments, after)` under the mutex, for each note. `end` may be repeated, runs no code of
users, and leaves what is to be done once the mutex is free to `after` (see `After`).

Every driver settles on entering and on leaving, and so does everybody who waits, once a second. So a key is
free again at the latest when the outermost call has left the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..common.logs import log
from .mutex import inside, mutex

__all__ = ["After", "settle", "unsettled"]

unsettled: dict[Any, tuple[Any, ...]] = {}
"""By what is to be ended, by identity. Only single operations of a dictionary, so no lock is needed."""


class After(list[Any]):
    """What follows a section of the mutex: filled under it, run once the mutex is free.

    It holds what is to be called (a latch's `open`, a work's `stop`; one that is cut short is called again)
    and, within tuples, what is only to be destroyed: keys and values of users, whose destructors may do
    anything.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __eq__(self, other: object, /) -> bool: ...
        def __hash__(self) -> int: ...  # type: ignore[override]
    else:  # noted by identity
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    def run(self) -> None:
        """Do it all, in order; call under no lock. What there is no room for is done later."""
        done = 0
        try:
            for act in self:
                if type(act) is not tuple:
                    act()
                done += 1
            self.clear()
        except (RecursionError, MemoryError):
            unsettled[self] = _do_the_rest, self, done
        except BaseException:  # an interrupt
            unsettled[self] = _do_the_rest, self, done
            raise


def _do_the_rest(acts: After, done: int, after: After) -> None:
    after.extend(acts[done:])


def settle() -> None:
    """End everything that is noted. Does nothing inside a section: whoever leaves that settles.

    What there is still no room for stays noted. Safe to call from any thread, under no lock.
    """
    if not unsettled or inside():
        return
    after = After()
    faults: list[Exception] = []
    try:
        with mutex:  # nobody finds the key taken while it is being freed
            for what in list(unsettled):
                end = unsettled.get(what)
                if end is not None:
                    try:
                        end[0](*end[1:], after)
                    except (RecursionError, MemoryError):
                        break  # there is more room further up the stack
                    except Exception as error:  # of ours: tell it once, instead of raising it in every call
                        faults.append(error)
                    unsettled.pop(what, None)  # last: an interrupt before it only repeats the end
    finally:
        after.run()
    for fault in faults:
        log.error("a call could not be ended", exc_info=fault)
