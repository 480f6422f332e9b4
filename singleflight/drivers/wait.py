"""One wait of a call, as threads and tasks drive it: for how long to pause, and what to do after that.

    wait = Wait(cache, call)
    while decision is JOIN:
        decision = wait.woken(<stand at call.latch for wait.pauses()>)

The standing is all that differs: a thread blocks at the latch, a task awaits a future of its loop's group.
"""

from __future__ import annotations

import time

from ..core.cache import Cache
from ..core.call import HIT, JOIN, NONE, SHARE, Call, Decision
from ..core.coordinator import awake, board, look, pauses
from ..locks.latch import LOOK
from ..locks.unsettled import settle, unsettled

__all__ = ["Wait"]


class Wait:
    """The wait of a call that has joined a flight. Its own caller's alone.

    Args:
        waited: for how many seconds the caller has waited already, for other keys.
    """

    __slots__ = ("_cache", "_call", "began")

    def __init__(self, cache: Cache, call: Call, waited: float = 0.0) -> None:
        self._cache, self._call = cache, call
        self.began: float = time.monotonic() - waited
        if call.wants_events:
            cache.tell.waiting(call.flight, call.place)

    def pauses(self) -> tuple[float, float | None]:
        """For how many seconds it may wait before somebody looks, and before it looks itself."""
        call, cache = self._call, self._cache
        if cache.is_patient and not call.awaited_outside:
            return LOOK, None  # what `pauses` says, in short: thousands may wait at once
        return pauses(cache, call, self.began)

    def pause(self) -> float:
        """For how many seconds a thread may wait, which always looks itself."""
        pause, own_pause = self.pauses()
        return pause if own_pause is None else min(pause, own_pause)

    def woken(self, opened: bool) -> Decision:
        """What to do now that its latch was opened, or (False) its pause is over. JOIN: wait on.

        Raises `FlightTimeout` or `FlightDeadlock`; it has left then.
        """
        call, cache = self._call, self._cache
        if unsettled:
            settle()
        if opened or call.flight.has_opened(call.latch):  # a wake-up may be lost
            decision = awake(cache, call)
        else:
            decision = look(cache, call, self.began)
        if decision is NONE and not call.follows:  # its flight was detached and had no outcome to share
            decision = board(cache, call, soft=False)
        if call.wants_events and decision is not JOIN and decision is not SHARE:
            self._tell_end(decision)
        return decision

    def _tell_end(self, decision: Decision) -> None:
        """Tell how the wait has ended; whoever takes a flight's outcome tells that."""
        call, tell = self._call, self._cache.tell
        if decision is not HIT or call.served != "wait":
            tell.resumed(call.key, self.seconds())
        elif not call.follows:  # else its bulk call tells it
            tell.shared_record(call.record, self._cache.timer(), self.seconds())

    def seconds(self) -> float:
        """For how many seconds the caller has waited in all."""
        return time.monotonic() - self.began
