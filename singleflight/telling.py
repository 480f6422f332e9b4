"""What the decision maker tells, and when it is worth building an event for it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .entries import Record
from .events import (
    Abort,
    Deadlock,
    Emitter,
    Evict,
    Expire,
    Fetch,
    Hit,
    Land,
    Share,
    StaleHit,
    Timeout,
    Unseat,
    Wait,
)
from .flights import Flight

__all__ = ["Teller"]


class Teller(Emitter):
    """One function's events. Every method is called after the transition, under no lock."""

    __slots__ = ()

    def hit(self, record: Record, now: float) -> bool:
        """A caller was served the longer way; whether anybody listens to that."""
        wanted = self.wants("hit")
        if wanted:
            self.tell(Hit, record.key, value=record.value, age=max(0.0, now - record.landed))
        return wanted

    def stale_hit(self, record: Record, now: float) -> None:
        """A caller was served a value past its ttl."""
        if self.wants("stale_hit"):
            self.tell(StaleHit, record.key, value=record.value, age=max(0.0, now - record.landed))

    def refused(self, key: Hashable, cycle: str) -> None:
        """A caller would have closed a circle."""
        if self.wants("deadlock"):
            self.tell(Deadlock, key, cycle=cycle)

    def fetching(self, flight: Flight) -> None:
        """A leader is about to run the function."""
        if self.wants("fetch"):
            self.tell(Fetch, flight.key, flight=flight.kind)

    def waiting(self, flight: Flight, followers: int) -> None:
        """A follower is about to wait for the first time, as one of so many."""
        if self.wants("wait"):
            self.tell(Wait, flight.key, followers=followers)

    def shared(self, flight: Flight, now: float, waited: float) -> None:
        """A follower has its flight's outcome."""
        if self.wants("share"):
            value, error = flight.value, flight.error
            age = max(0.0, now - flight.landed)
            self.tell(Share, flight.key, value=value, error=error, age=age, waited=waited)

    def timed_out(self, key: Hashable, waited: float) -> None:
        """A follower gave up."""
        if self.wants("timeout"):
            self.tell(Timeout, key, waited=waited)

    def landed(
        self, flight: Flight, ended: tuple[int, bool], value: Any, now: float, ttl: float | None
    ) -> None:
        """A flight ended with a value, stored for `ttl` seconds or (None) not at all."""
        if self.wants("land"):
            told = _told(flight, ended, now)
            self.tell(
                Land, flight.key, value=value, stored=ttl is not None, ttl=ttl, retried=ended[1], **told
            )

    def failed(self, flight: Flight, ended: tuple[int, bool], error: BaseException, now: float) -> None:
        """A flight ended with an exception, or was aborted by one."""
        told = _told(flight, ended, now)
        if not isinstance(error, Exception):
            if self.wants("abort"):
                self.tell(Abort, flight.key, error=error, **told)
        elif self.wants("land"):
            self.tell(Land, flight.key, error=error, stored=False, retried=ended[1], **told)

    def unseated(self, flight: Flight) -> None:
        """A flight took too long, or was dead, and has lost its key."""
        if self.wants("unseat"):
            self.tell(Unseat, flight.key)

    def gone(self, records: list[Record], now: float) -> None:
        """These records left the store by themselves."""
        for record in records:
            kind = Evict if record.fresh_for(now) > 0 else Expire
            if self.wants(kind.kind):
                self.tell(kind, record.key)


def _told(flight: Flight, ended: tuple[int, bool], now: float) -> dict[str, Any]:
    return {"duration": now - flight.started, "followers": ended[0]}
