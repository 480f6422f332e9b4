"""The entries of one function on the server and near: their names, their envelopes, their marks, and counts.

What this process has near is known by *marks*, which are tags of the store's own: one for its key, one for
the function, one for each of its tags. So a drop that the bus tells needs no key, and refuses the value of
every flight that began before it.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from typing import Any, NamedTuple

from ..common.logs import log
from ..common.messages import shown
from ..core.cache import Cache
from ..core.flight import Flight
from ..core.landing import Arrival, Verdict, appraise, judge
from ..fleet.cuts import Known, Numbers
from ..fleet.drops import Drop
from ..fleet.envelopes import Envelope, Envelopes
from ..fleet.keybytes import key_bytes
from ..fleet.names import entry_name, hash_of
from ..fleet.near import NearTimes
from ..fleet.refusals import OversizedValue
from ..fleet.serializers import Codec
from ..storage.policy import weight_from
from ..storage.record import Record, WeighedRecord
from . import scripts
from .clients import Trouble, raise_trouble
from .link import Link

__all__ = ["Brought", "Entries", "SharedRecord", "Terms", "lives", "mark_of", "milliseconds"]

_LONGEST = 30 * 86_400.0  # seconds that the server keeps a value which never expires
_GLANCE = 0.002  # seconds between looks at what another way is sending
_COUNTS = ("shared_hits", "shared_waits", "refused", "leases_lost", "degraded", "unreadable")


class Terms(NamedTuple):
    """What a `RedisStore` says for its functions.

    Args:
        near_ttl: for how many seconds a value is served here before the server is asked again.
        max_value: how many bytes a value may have, with what is around it.
        signing_key: signs what is sent.
        errors: classes of exceptions that may be made anew in another process.
    """

    near_ttl: float
    max_value: int
    signing_key: bytes | None
    errors: tuple[type[Exception], ...]


class SharedRecord(WeighedRecord):
    """One that other processes have, too. `born` is when its flight got the lease, by the server's clock."""

    __slots__ = ("born",)
    born: int


class Brought(NamedTuple):
    """What a flight is to land with: a value and what is to become of it, or an error."""

    value: Any
    arrival: Arrival | None = None
    error: BaseException | None = None
    verdict: Verdict | None = None
    missing: bool = False
    """Nothing is known of the key: a bulk answer is without it."""


class Entries:
    """The entries of one function. `lock` of the link guards `numbers`, `flying` and the counts.

    Args:
        codec: makes bytes of values, and values of bytes.
        version: what the user changes when the values of older code are not to be used.
    """

    link: Link
    cache: Cache
    terms: Terms
    codec: Codec
    envelopes: Envelopes

    def __init__(
        self, link: Link, cache: Cache, terms: Terms, codec: Codec, version: str | int | None
    ) -> None:
        self.link, self.cache, self.terms = link, cache, terms
        self.codec, self._version = codec, version
        self.version: bytes = b""  # until its first use: the annotation may name what is defined further down
        self._hash = hash_of(cache.name)
        self.digest: bytes = self.known_as(b"")
        self._mark = mark_of(self.digest)
        self.numbers: Known = Known()
        self.flying: dict[Flight, Any] = {}  # each with its passage
        # Those that run without the server, each with what its key is known by; by single operations, so
        # without a lock.
        self.alone: dict[Flight, bytes] = {}
        self._counts: dict[str, int] = dict.fromkeys(_COUNTS, 0)
        self._said: set[str] = set()

    def settle(self) -> None:
        """Find out, at the first use, what its values are; raises `UnportableValue`."""
        if not self.version:
            version = self.codec.fingerprint(self._version)
            self.envelopes = Envelopes(version, self.terms.max_value, self.terms.signing_key)
            self.version = version

    def led(self) -> list[Any]:
        """Return the passages that lead for all now; under the link's lock."""
        return [passage for passage in self.flying.values() if passage.claim.renews]

    # -- names and envelopes ------------------------------------------------------------------------

    def known_as(self, written: bytes) -> bytes:
        """Return what a key of these bytes is known by in news, marks and drops, whatever the epoch."""
        made = self._hash.copy()
        made.update(written)
        return made.digest()

    def place_of(self, key: Hashable, epoch: int | None = None) -> scripts.Place:
        """Return where a key's entry is on the server, in this epoch or in the one that is known."""
        epoch = self.latest().epoch if epoch is None else epoch
        return scripts.place(entry_name(self.link.prefix, self.cache.name, key_bytes(key), epoch))

    def tag_digest(self, tag: str) -> bytes:
        """Return what a tag of this function is known by."""
        return self.known_as(b"tag" + tag.encode("utf-8", "surrogatepass"))

    def known_numbers(self) -> Numbers | None:
        """Return epoch and last cut; None if newer ones may have been missed: the server is to be asked."""
        return self.numbers.now if self.link.bus.up else None

    def latest(self) -> Numbers:
        """Return them as far as they are known."""
        return self.numbers.now or Numbers()

    def learn(self, numbers: Numbers, era: int) -> None:
        """The server was asked in this era; in a later one that is doubtful."""
        with self.link.lock:
            if era == self.link.era:
                self.numbers.learn(numbers)

    def saw(self, numbers: Numbers, carried: int = 0) -> None:
        """The server has given these; an entry has carried that cut."""
        with self.link.lock:
            self.numbers.saw(numbers, carried)

    def envelope_of(self, value: Any, record: Record | None, cut: int, refused: bool = False) -> Envelope:
        """Return a value in its envelope, with the last cut that was known; raises `UnportableValue`."""
        kind, payload = self.codec.enclose(value)
        if record is None:
            return Envelope(kind, payload, cut, refused=refused)
        after = record.refresh_at - record.landed
        return Envelope(kind, payload, cut, record.ttl, record.grace, after, refused, record.tags)

    def near(self, record: Record, named: bytes, born: int) -> SharedRecord:
        """Return a record as it is kept here: cut to `near_ttl`, and with its marks."""
        near_ttl, fresh, stale = self.terms.near_ttl, record.ttl, record.grace
        if fresh + stale > near_ttl:
            fresh = min(fresh, near_ttl)
            stale = near_ttl - fresh
        made = SharedRecord(record.key, record.value, record.landed, fresh, stale, record.refresh_at)
        made.born = born
        made.tags = self.marks(named, record.tags)
        made.weight = record.weight
        return made

    def marked(
        self, key: Hashable, value: Any, times: NearTimes, named: bytes, born: int, tags: tuple[str, ...]
    ) -> SharedRecord:
        """Return a record of what was found; passes on what `weigh` raises."""
        record = SharedRecord(key, value, *times)
        record.born = born
        record.tags = self.marks(named, tags)
        weigh = self.cache.weigh
        record.weight = 1 if weigh is None else weight_from(weigh(value))
        return record

    def marks(self, named: bytes, tags: tuple[str, ...]) -> tuple[str, ...]:
        """Return the tags of what is near: the user's, and marks of its key, its function and these tags."""
        if not tags:
            return mark_of(named), self._mark
        return (*tags, mark_of(named), self._mark, *map(mark_of, map(self.tag_digest, tags)))

    # -- flights that the server does not hear of ---------------------------------------------------

    def set_out_alone(self, flight: Flight) -> bytes:
        """The server is not asked: the flight's function runs here. Return what its key is known by.

        Raises `UnportableKey` and, for an annotation that says nothing, `UnportableValue`.
        """
        self.settle()
        named = self.known_as(key_bytes(flight.key))
        with self.link.lock:
            self._counts["degraded"] += 1
        return named

    def arrival_of(self, flight: Flight, value: object, named: bytes) -> Arrival:
        """Return what is to become of its value, of which no bytes are made; raises what `appraise` does."""
        storable, ttl, now, record = appraise(self.cache, flight, value)
        return storable, ttl, now, None if record is None else self.near(record, named, 0)

    def failed(self, flight: Flight, error: Exception, named: bytes) -> Brought:
        """Return what a flight is to end with where its function raised this, or what looks at its value."""
        try:
            verdict = judge(self.cache, error, flight)
            verdict = verdict._replace(ttl=min(verdict.ttl, self.terms.near_ttl), marks=self.marks(named, ()))
            return Brought(None, error=verdict.error, verdict=verdict)
        finally:
            del error  # or this frame and the exception would keep each other

    # -- drops ---------------------------------------------------------------------------------------

    def sending(self, drop: Drop) -> Generator[list[scripts.Call] | float, list[Any], None]:
        """Tell the server of a drop, if it is not confirmed. Yields calls, is sent their replies; or seconds.

        Raises `Trouble` if one of them is that. Where an interrupt ends this the keeper sends it.
        """
        sent: Numbers | None = self.latest()
        again = False
        # Each time: another way may have confirmed it meanwhile, and others may have dropped it since.
        while sent is not None and (current := self.link.current(drop)) is not None:
            taken = self.link.takes(current, self.link.is_sending(current))
            if taken is None:
                yield _GLANCE
                continue
            try:
                era = self.link.era
                replies = yield self.calls_of(current, sent)
                sent = self.told(current, era, sent, replies, again)
            except BaseException as error:
                self.link.sent(taken)
                if not isinstance(error, Trouble):  # an interrupt: whether it was told, nobody knows
                    self.link.keeper.hand_over(*self.link.orders(current))
                raise
            self.link.sent(taken)
            again = True

    def told(
        self, drop: Drop, era: int, sent: Numbers, replies: list[Any], again: bool = False
    ) -> Numbers | None:
        """The server has answered what `calls_of` asked: None if the drop is confirmed.

        Else its numbers, with which it is to be told again: by another epoch, newer or lost, the entry has
        another name, and by a later cut (once) a put is not older. Raises `Trouble` if it refused.
        """
        raise_trouble(replies)
        newest = scripts.numbers(replies[-1]) if len(replies) > 1 else sent
        if newest.epoch != sent.epoch or (newest.cut > sent.cut and _has_tags(drop) and not again):
            self.learn(newest, era)
            return newest
        self.link.confirm(drop, replies[0])
        return None

    def ask_numbers(self) -> scripts.Call:
        """Return what asks for epoch and last cut; `scripts.numbers` reads the reply."""
        prefix, function = self.link.prefix, self.digest
        keys = scripts.epoch_key(prefix, function), scripts.last_cut_key(prefix, function)
        return scripts.command("MGET", *keys)

    def calls_of(self, drop: Drop, numbers: Numbers) -> list[scripts.Call]:
        """Return what tells the server of a drop; of one key also what asks if these numbers still hold."""
        call = self._call_of(drop, numbers)
        return [call, self.ask_numbers()] if drop.kind in ("drop", "put") else [call]

    def _call_of(self, drop: Drop, numbers: Numbers) -> scripts.Call:
        link, ever, life = self.link, self.numbers.ever, milliseconds(2 * _LONGEST)
        head = scripts.news_head(self.digest, drop.name or bytes(16), link.me)
        if drop.kind == "clear":
            key = scripts.epoch_key(link.prefix, self.digest)
            return scripts.raise_epoch(key, known=ever.epoch, life=life, bus=link.bus_channel, head=head)
        if drop.kind == "cut":
            last = scripts.last_cut_key(link.prefix, self.digest)
            tag = scripts.cut_key(link.prefix, drop.name)
            return scripts.cut(last, tag, known=ever.cut, life=life, bus=link.bus_channel, head=head)
        payload: Any = drop.payload
        written = payload if drop.kind == "drop" else payload[0]
        name = entry_name(link.prefix, self.cache.name, written, numbers.epoch)
        place = scripts.place(name)
        if drop.kind == "drop":
            return scripts.drop(place, bus=link.bus_channel, head=head)
        envelope: Envelope = payload[1]._replace(last_cut=numbers.cut)
        try:
            packed = self.envelopes.pack(name, written, envelope)
        except OversizedValue:  # this process has it, the others load their own
            return scripts.drop(place, bus=link.bus_channel, head=head)
        fresh, life = lives(envelope)
        return scripts.put(
            place, self.version, packed, fresh=fresh, life=life, bus=link.bus_channel, head=head
        )

    def confirmed(self, drop: Drop, reply: Any) -> None:
        """The server has done it. What is not known here stays so: more may have been missed."""
        if drop.kind == "clear":
            self.saw(Numbers(epoch=int(reply)))
        elif drop.kind == "cut":
            self.saw(Numbers(cut=int(reply)))
            self.link.raise_cut(drop.name, int(reply))

    # -- counts -------------------------------------------------------------------------------------

    def count(self, name: str) -> None:
        """Count one more."""
        with self.link.lock:
            if name in self._counts:
                self._counts[name] += 1

    def counted(self) -> dict[str, int]:
        """Return the counts that `Stats` has for it."""
        with self.link.lock:
            return self._counts.copy()

    def reset(self) -> None:
        """Count from zero."""
        with self.link.lock:
            self._counts = dict.fromkeys(_COUNTS, 0)

    def unread(self, reason: str, key: Hashable) -> None:
        """What the server has for a key could not be read."""
        self.count("unreadable")
        self.say_once(reason, key, f"is stored in a way that cannot be read ({reason})")

    def say_once(self, reason: str, key: Hashable, what: str) -> None:
        """Log what is the matter with a value, once for each reason."""
        with self.link.lock:
            known = reason in self._said
            self._said.add(reason)
        if not known:
            log.warning("%s: the value of %s %s; said once", self.cache.name, shown(key), what)

    def after_fork(self) -> None:
        """In a forked child: it counts for itself."""
        self.flying, self.alone = {}, {}
        self.numbers.forget()
        self._counts = dict.fromkeys(_COUNTS, 0)


def mark_of(name: bytes) -> str:
    """The mark by which a near entry leaves: no tag of the user's begins like it."""
    return f"\0{name.hex()}"


def _has_tags(drop: Drop) -> bool:
    payload: Any = drop.payload
    return drop.kind == "put" and bool(payload[1].tags)


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, as the server counts."""
    return max(0, round(seconds * 1000))


def lives(envelope: Envelope) -> tuple[int, int]:
    """For how many milliseconds the server serves a value without a renewal, and in all."""
    life = min(envelope.ttl + envelope.grace, _LONGEST)
    return milliseconds(min(envelope.ttl, envelope.refresh_after, life)), max(1, milliseconds(life))
