"""Is the server asked? A breaker without a clock: who fails opens it, and the keeper alone closes it.

    state       event                        then        what is meant
    ----------  ---------------------------  ----------  -------------------------------------------------
    CONNECTED   failed                       DEGRADED    nobody but the keeper asks; flights run alone
    DEGRADED    answered (the keeper's ask)  RECOVERING  the keeper replays drops; flights still run alone
    RECOVERING  recovered                    CONNECTED   all drops are confirmed: claims may be asked
    RECOVERING  failed                       DEGRADED    the next probe is later
    DEGRADED    failed, by the keeper        DEGRADED    the next probe is later

The keeper may probe from `probe_at` on. The pause doubles with each probe that fails, from `base` to `cap`
seconds, and half of it is drawn by chance, so that a fleet does not come back in one moment.

Failures come from many threads at once, and late: only the first of a *period* (the time from one
connection to its end) counts. So whoever asks takes the period's number before, and reports it with the
failure.

A breaker has no lock: call it under the store's own. Each change of state is returned once, for one line of
the log and one event.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = ["CONNECTED", "DEGRADED", "RECOVERING", "Breaker", "Change", "Connection"]

Connection: TypeAlias = Literal["connected", "degraded", "recovering"]
CONNECTED: Final = "connected"
DEGRADED: Final = "degraded"
RECOVERING: Final = "recovering"


class Change(NamedTuple):
    """The breaker changed its state, `lasted` seconds after the connection was last made or lost."""

    before: Connection
    after: Connection
    lasted: float


class Breaker:
    """Says who may talk to the server.

    Args:
        now: the time on any clock that does not go back; the same is given to every event.
        base: the first pause before a probe, in seconds.
        cap: the longest pause, in seconds.
    """

    __slots__ = ("_base", "_cap", "_failures", "period", "probe_at", "since", "state")

    def __init__(self, now: float, base: float = 0.5, cap: float = 10.0) -> None:
        self._base, self._cap = base, cap
        self._failures = 0
        self.state: Connection = CONNECTED
        self.since: float = now
        self.period: int = 0
        self.probe_at: float = now

    def failed(self, period: int, now: float, chance: float) -> Change | None:
        """A flight's question failed that was asked in this period. `chance` is from 0 to 1, 1 excluded."""
        if self.state != CONNECTED or period != self.period:
            return None
        return self._degrade(now, chance)

    def may_probe(self, now: float) -> bool:
        """Return True if the keeper is to ask now."""
        return self.state == DEGRADED and now >= self.probe_at

    def probe_failed(self, now: float, chance: float) -> Change | None:
        """The keeper's own question failed, or what it replays, or a renewal."""
        return self._degrade(now, chance)

    def answered(self, now: float) -> Change | None:
        """The keeper's probe was answered: drops are to be replayed now."""
        return self._change(RECOVERING, now) if self.state == DEGRADED else None

    def recovered(self, now: float) -> Change | None:
        """All drops are confirmed. Call under the lock under which that was seen."""
        if self.state != RECOVERING:
            return None
        self._failures = 0
        self.period += 1
        return self._change(CONNECTED, now)

    def _degrade(self, now: float, chance: float) -> Change | None:
        pause = min(self._cap, self._base * 2.0 ** min(self._failures, 60))
        self._failures += 1
        self.probe_at = now + pause * (0.5 + chance / 2)
        return self._change(DEGRADED, now) if self.state != DEGRADED else None

    def _change(self, state: Connection, now: float) -> Change:
        change = Change(self.state, state, now - self.since)
        if CONNECTED in (state, self.state):
            self.since = now
        self.state = state
        return change
