"""One flight on its way by the server: what it finds there, waits for, and tells at its end.

`Passage.steps` is a generator that knows no threads and no event loops: it yields what is to be done and is
sent what came of it. What to say to the server is up to the flight's `Claim`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

from ..common.errors import FlightDeadlock, FlightTimeout
from ..common.keys import plain
from ..common.messages import shown
from ..core.delays import allot, hold_back, renumber, set_out
from ..core.flight import FLYING, Flight
from ..core.landing import Arrival, Verdict, appraise, judge
from ..core.transitions import is_unshared
from ..fleet import claims
from ..fleet.claims import Claim, Outcome
from ..fleet.cuts import Numbers, is_cut
from ..fleet.envelopes import Envelope
from ..fleet.failures import failure_bytes, failure_from
from ..fleet.keybytes import key_bytes
from ..fleet.mailboxes import Mailbox
from ..fleet.names import digest, name_of_digest
from ..fleet.near import near_times
from ..fleet.refusals import OversizedValue, Unreadable
from ..fleet.replies import Absent, Answer, Found, Oversized, Refused
from ..locks.mutex import mutex
from ..locks.waitgraph import holds_up
from . import scripts
from .clients import Trouble, raise_trouble, replies_of
from .cycles import LOOK, PAUSE, Edges
from .entries import Brought, Entries, SharedRecord, lives, milliseconds
from .keeper import Lease, Order

__all__ = ["LISTEN", "RUN", "Passage", "leading"]

leading: ContextVar[tuple[Passage, ...]] = ContextVar("singleflight_leading", default=())
"""The flights that the running code is inside of and that this process leads for all."""
LISTEN = object()  # what `steps` yields to have the bus listen
RUN = ()  # and to have the function run: its arguments
_UNTOLD = Outcome("aborted")  # of a flight of which the server hears nothing: no bytes are made
_PATIENCE = 3  # sightings of a cycle after which it is no longer left to those who are part of it


class Passage:
    """One flight on its way by the server. Its driver's alone; the link's lock guards `claim` and the box."""

    __slots__ = (
        *("_asked", "_asked_at", "_began", "_birth", "_box", "_cut", "_entries", "_kind", "_lease", "_name"),
        *("_outdated", "_owed", "_place", "_sighted", "_written"),
        *("claim", "digest", "fenced", "flight", "judged", "lacks", "leader", "waited"),
    )
    flight: Flight
    digest: bytes  # by which others know its key; from the first step on
    _outdated: bool  # what was found last

    def __init__(self, entries: Entries, flight: Flight, box: Mailbox) -> None:
        self._entries, self.flight, self._box = entries, flight, box
        self._kind = flight.kind
        self._began = time.monotonic()
        self._lease: Lease | None = None
        self.leader: str | None = None
        self.waited: bool = False
        self._cut = 0  # the last one that was known before the last question
        self._sighted = 0  # how often in a row it has seen a cycle that it is no part of
        self.lacks = False  # the loader has left it out
        self.fenced = False  # it was detached for what it may have missed: its lease says if it has
        self.judged: Verdict | None = None  # what `failure_ttl` said, once for all that the loader ran for
        mode: claims.Mode = "renew" if flight.background else "force" if flight.kind == "refresh" else "read"
        before = flight.previous
        seen = before.born if isinstance(before, SharedRecord) and mode == "renew" else 0
        self.claim: Claim = Claim(mode, entries.link.new_token(), flight.retries, seen)
        self._owed: claims.Release | None = None  # what the server is to be told when it has left
        self._place: scripts.Place | None = None  # where its entry is; None before the first question

    def steps(self) -> Generator[Any, Any, Brought | None]:
        """Yield calls to send, seconds to wait at the mailbox, `LISTEN` or `RUN`; return what is to land.

        What is sent back is what came of it and what was raised, as a pair. None is returned for a renewal
        that another process does.
        """
        entries, link, flight, claim = self._entries, self._entries.link, self.flight, self.claim
        try:
            entries.settle()
            self._written = key_bytes(flight.key)
            self.digest = entries.known_as(self._written)
        except Exception as error:
            return Brought(None, error=error)
        try:
            with link.lock:
                entries.flying[flight] = self
                step: Any = claim.begin()
            while True:
                kind = type(step)
                if kind is claims.Ask or kind is claims.Wait:
                    go_on = self._ask if kind is claims.Ask else self._wait
                    step, struck = yield from go_on(step)
                    if struck is not None:
                        return Brought(None, error=struck)
                elif kind is claims.Adopt or kind is claims.Share:
                    brought = yield from self.take(step)
                    if brought is not None:
                        return brought
                    with link.lock:
                        step = claim.outdated() if self._outdated else claim.unreadable()
                elif kind is claims.Run:
                    self.set_out(step)
                    return (yield from self.came(*(yield RUN)))
                elif claim.mode == "renew":  # Leave
                    return None
                else:  # Leave, in a forked child: what its parent waits for is sent to that
                    value, struck = yield RUN
                    return Brought(value, error=struck)
        finally:
            try:
                self._leave()
            except BaseException:  # an interrupt: once more, for what it left
                self._leave()
                raise

    def hand_over(self, step: claims.Step) -> None:
        """Have the keeper tell the server: nobody waits for that."""
        link = self._entries.link
        link.keeper.hand_over(Order(self._call(step), lambda _: None))

    def _leave(self) -> None:
        entries, link = self._entries, self._entries.link
        with link.lock:
            entries.flying.pop(self.flight, None)
            self._owed = self.claim.given_up() or self._owed  # the second time it has ended
        self._close_box()
        self._let_go()
        if self._owed is not None and self._place is not None:
            self.hand_over(self._owed)

    def _close_box(self) -> None:
        link = self._entries.link
        if self._place is not None:
            with link.lock:
                link.mailboxes.leave(self._place.waits(self._entries.version), self._box)

    # -- asking and waiting -------------------------------------------------------------------------

    def _ask(self, step: claims.Ask) -> Generator[Any, Any, tuple[Any, BaseException | None]]:
        """Ask the server. Returns the next step."""
        entries, link, claim = self._entries, self._entries.link, self.claim
        if step.mode == "peek":  # a claim that finds a value writes nothing, so there is none
            return self._report(Absent()), None
        period = link.period()
        if period is None:
            entries.count("degraded")
            with link.lock:
                return claim.failed(), None
        if not link.bus.up:
            _, error = yield LISTEN
            if error is not None and not isinstance(error, Exception):
                return None, error
        replies: Any = None
        error = None
        renumber(self.flight)  # first: what is changed here from now on is not told before it asks
        numbers = None if link.pending() else entries.known_numbers()
        if numbers is None:
            numbers, error = yield from replies_of(self._settle())
        if numbers is not None:
            place = self._find_place(numbers.epoch)
            self._cut = max(self._cut, numbers.cut)
            self._asked, self._asked_at = entries.cache.timer(), time.monotonic()
            call = scripts.claim(
                place,
                entries.version,
                claim.token,
                step.mode,
                lease=milliseconds(link.lease),
                channel=link.channel,
                leader=link.name,
                most=entries.terms.max_value,
                seen=step.seen,
                chain=step.chain,
            )
            replies, error = yield from self._send(call)
        if isinstance(error, Trouble):
            read_only = link.failed(error, period)
            if not read_only:
                entries.count("degraded")
            with link.lock:
                return (claim.read_only() if read_only else claim.failed()), None
        if error is not None:
            return None, error
        return self._report(scripts.claimed(replies[0])), None

    def _report(self, answer: Answer) -> claims.Step:
        link = self._entries.link
        if isinstance(answer, Oversized):
            self._entries.unread("too large", self.flight.key)
        with link.lock:
            return self.claim.answered(answer, deaf=not link.bus.hears)

    def _settle(self) -> Generator[list[scripts.Call] | float, list[Any], Numbers]:
        """Tell the server what was dropped here and must reach it first; return epoch and last cut."""
        entries, link = self._entries, self._entries.link
        if link.pending():
            for drop in link.first_for(entries.digest, self.digest):
                yield from entries.sending(drop)
        numbers, era = entries.known_numbers(), link.era
        if numbers is None:
            replies = yield [entries.ask_numbers()]
            raise_trouble(replies)
            numbers = scripts.numbers(replies[0])
            entries.learn(numbers, era)
        return numbers

    @staticmethod
    def _send(call: scripts.Call) -> Generator[Any, Any, tuple[list[Any], BaseException | None]]:
        """Send a call. A trouble comes as the error."""
        replies, error = yield [call]
        if error is None and isinstance(replies[0], Trouble):
            error = replies[0]
        return replies, error

    def _find_place(self, epoch: int) -> scripts.Place:
        entries = self._entries
        prefix, name = entries.link.prefix, entries.cache.name
        self._close_box()
        of = digest(name, self._written, epoch) if epoch else self.digest
        self._name = name_of_digest(prefix, name, of)
        self._place = place = scripts.place(self._name)
        with entries.link.lock:
            entries.link.mailboxes.register(place.waits(entries.version), self._box)
        return place

    def _wait(self, step: claims.Wait) -> Generator[Any, Any, tuple[Any, BaseException | None]]:
        """Wait for another process. Returns the next step."""
        entries, link, flight, claim = self._entries, self._entries.link, self.flight, self.claim
        cache, limit = entries.cache, entries.cache.options.wait_timeout
        tell, name = cache.tell, cache.name
        if not self.waited:
            self.waited = True
            entries.count("shared_waits")
            if tell.wants("shared_wait"):
                tell.tell("shared_wait", flight.key, leader=step.leader, flight_id=flight.ident)
        self.leader = step.leader
        allot(flight, "shared", flight.retries)
        hold_back([flight])
        seconds = step.seconds
        if limit is not None:
            seconds = min(seconds, max(0.0, self._began + limit - time.monotonic()))
        found, error = yield from self._wait_inside(seconds)
        self.leader = None
        if found is not None:
            cycle = " -> ".join(found)
            tell.refused(flight.key, cycle, leads=True)
            error = FlightDeadlock(f"{name}: waiting would never end, over several processes: {cycle}")
        if error is not None:
            return None, error
        with link.lock:
            wake = self._box.take()
        if wake is None and limit is not None and time.monotonic() >= self._began + limit:
            waited = time.monotonic() - self._began
            tell.timed_out(flight.key, waited, leads=True)
            return None, FlightTimeout(f"{name}: waited {waited:.3g} s for {shown(flight.key)}")
        with link.lock:
            if wake is not None:
                return claim.woken(wake), None
            return (claim.lapsed() if link.breaker.state == "connected" else claim.failed()), None

    def _wait_inside(
        self, seconds: float
    ) -> Generator[Any, Any, tuple[list[str] | None, BaseException | None]]:
        """Wait. Where flights that lead cannot end before, look for a cycle, and return it."""
        link, end = self._entries.link, time.monotonic() + seconds
        if self._kind == "refresh" and self.flight.background:
            _, error = yield seconds
            return None, error
        edges = Edges([], 0, self, 0)
        try:
            before = None
            while True:
                inside, others = self._held_up()
                outer, found = [*inside, *others], None
                if outer != edges.outer:
                    forgotten = edges.forget()
                    edges = Edges(outer, len(inside), self, milliseconds(link.lease + 1))
                    _, error = yield [*forgotten, *edges.note()]
                    if error is not None and not isinstance(error, Trouble):
                        return None, error
                if outer:
                    found, error = yield from replies_of(edges.look())
                    if error is not None and not isinstance(error, Trouble):
                        return None, error
                pause = PAUSE
                if found is None or found == before:
                    self._sighted = 0 if found is None else self._sighted + 1
                    if found is not None and (edges.is_own(found) or self._sighted == _PATIENCE):
                        return edges.words(found), None
                    found, pause = None, LOOK
                before, pause = found, min(pause, end - time.monotonic())
                if pause <= 0:
                    return None, None
                rung, error = yield pause
                if rung or error is not None:
                    return None, error
        finally:
            if edges.outer:
                link.keeper.hand_over(*(Order(call, lambda _: None) for call in edges.forget()))

    def _held_up(self) -> tuple[list[Passage], list[Passage]]:
        """Return the flights that this process leads for all and that cannot end before this one.

        First those that it is inside of, the outermost first; then those whose functions wait for it here.
        """
        link, flight = self._entries.link, self.flight
        inside = [each for each in leading.get() if each.claim.renews and each.is_of(link)]
        if not flight.followers:
            return inside, []
        with link.lock:
            leads = [each for function in link.functions() for each in function.led()]
        with mutex:
            return inside, [each for each in leads if each not in inside and holds_up(flight, each.flight)]

    def is_of(self, link: object) -> bool:
        """Return True if its function shares through this link."""
        return self._entries.link is link

    @property
    def is_rung(self) -> bool:
        """Return True if a wake has come for it."""
        return self._box.wake is not None

    @property
    def place(self) -> scripts.Place:
        """Where its entry is."""
        assert self._place is not None
        return self._place

    @property
    def text(self) -> str:
        """Its key, as people are to read it."""
        return shown(plain(self.flight.key))

    # -- what was found -----------------------------------------------------------------------------

    def take(self, step: Any) -> Generator[Any, Any, Brought | None]:
        """Return what was found; None if it cannot be read, or is too old."""
        entries, cache, flight = self._entries, self._entries.cache, self.flight
        found = step.found if type(step) is claims.Adopt else Found(step.envelope, 0, 0, 0)
        self._outdated = False
        try:
            envelope = entries.envelopes.open(self._name, self._written, found.envelope)
            if envelope.kind == "failure":
                return self._failed_elsewhere(envelope, found)
            value = entries.codec.open(envelope.kind, envelope.payload)
        except Unreadable as unread:
            entries.unread(unread.reason, flight.key)
            return None
        if envelope.tags:
            self._outdated = yield from self._is_cut(envelope.tags, envelope.last_cut)
            if self._outdated:
                return None
        if not self.waited:
            entries.count("shared_hits")
        now = cache.timer()
        if not found.left:
            allot(flight, "shared", 0)
            return Brought(value, arrival=(not envelope.refused, 0.0, now, None), missing=value is None)
        allot(flight, "shared", flight.retries)
        ages = envelope.ttl, envelope.grace, envelope.refresh_after
        times = near_times(self._asked, found.left, *ages, entries.terms.near_ttl)
        try:
            record = entries.marked(flight.key, value, times, self.digest, found.birth, envelope.tags)
        except Exception as raised:  # of `weigh`
            return entries.failed(flight, raised, self.digest)
        if cache.tell.wants("adopted"):
            age = max(0.0, now - times.landed)
            cache.tell.tell("adopted", flight.key, value=value, age=age, flight_id=flight.ident)
        served = record if times.ttl + times.grace > 0 else None
        return Brought(value, arrival=(True, times.ttl, now, served))

    def _failed_elsewhere(self, envelope: Envelope, found: Found) -> Brought:
        entries, flight = self._entries, self.flight
        error = failure_from(envelope.payload, entries.terms.errors)
        allot(flight, "shared", 0)
        ttl = min(found.left / 1000, entries.terms.near_ttl)
        return Brought(None, error=error, verdict=Verdict(error, ttl, marks=entries.marks(self.digest, ())))

    def _is_cut(self, of: tuple[str, ...], last: int) -> Generator[Any, Any, bool]:
        """Return True if a tag was invalidated after this cut; ask for what is not known."""
        entries, link = self._entries, self._entries.link
        tags = [entries.tag_digest(tag) for tag in of]
        era, known = link.era, link.known_cuts(tags)
        unknown = [tag for tag in tags if tag not in known]
        if unknown:
            keys = [scripts.cut_key(link.prefix, tag) for tag in unknown]
            replies, error = yield [scripts.command("MGET", *keys)]
            if error is not None and not isinstance(error, Trouble):  # an interrupt
                raise error
            if error is not None or isinstance(replies[0], Trouble):
                return True
            found = {tag: scripts.number(cut) for tag, cut in zip(unknown, replies[0], strict=True)}
            link.learn_cuts(found, era)
            known.update(found)
        newest = max(known.values())
        if newest > entries.latest().cut or last > entries.numbers.ever.cut:
            entries.saw(Numbers(cut=newest), carried=last)
        self._cut = max(self._cut, newest)  # what it loads instead is to be later
        return is_cut(known.values(), last)

    # -- running the function -----------------------------------------------------------------------

    def set_out(self, step: claims.Run) -> None:
        """The function is about to be run here, under a lease or without."""
        entries, cache, flight = self._entries, self._entries.cache, self.flight
        allot(flight, self._kind, step.retries)
        set_out(cache, [flight], cache.time_or(flight.started))
        self._birth = step.birth or 0
        if step.leased:
            version, token = entries.version, self.claim.token
            self._lease = Lease(self.place, version, token, lost=self._lost, wanted=self._is_awaited)
            entries.link.keeper.hold(self._lease, self._asked_at)
            if cache.tell.wants("claimed"):
                cache.tell.tell("claimed", flight.key, flight_id=flight.ident)

    def _is_awaited(self) -> bool:
        """Return True if its function is still to come back; asked by the keeper. Unseats it if it is due."""
        self.flight.see_to()
        return self.flight.state is FLYING

    def came(self, value: Any, error: BaseException | None) -> Generator[Any, Any, Brought]:
        """The function has ended: tell the server, and return what is to land here.

        The lease is held until then: what looks at the value, and the values of others, may take long.
        """
        entries, cache, flight = self._entries, self._entries.cache, self.flight
        outcome: Outcome | None = None
        arrival: Arrival | None = None
        verdict: Verdict | None = None
        try:
            if error is None:
                try:
                    arrival = self._appraise(value)
                    outcome = self._outcome(value, arrival) if self.claim.renews else _UNTOLD
                except BaseException as raised:
                    error = raised
            if isinstance(error, Exception):
                verdict = judge(cache, error, flight) if self.judged is None else self.judged
                error = verdict.error
            if error is not None:
                ttl = 0.0 if verdict is None else verdict.ttl
                outcome = self._failure(error, ttl) if self.claim.renews else _UNTOLD
            assert outcome is not None
            near = (yield from self._tell(outcome, value, error)).near
            if error is not None:
                if verdict is not None:
                    ttl = min(verdict.ttl, entries.terms.near_ttl) if near else 0.0
                    verdict = verdict._replace(ttl=ttl, marks=entries.marks(self.digest, ()))
                return Brought(None, error=error, verdict=verdict)
            assert arrival is not None
            return Brought(value, arrival=self._kept(arrival, near))
        finally:
            del error, verdict  # or this frame and the exception would keep each other

    def _appraise(self, value: Any) -> Arrival:
        """Return what is to become of the value; nothing of one that the loader has left out."""
        entries, cache = self._entries, self._entries.cache
        if self.lacks:
            return False, 0.0, cache.timer(), None
        fenced = self.fenced and not entries.link.first_for(entries.digest, self.digest)
        return appraise(cache, self.flight, value, detached=False if fenced else None)

    def _kept(self, arrival: Arrival, near: bool) -> Arrival:
        """Return the arrival of what was told, which may be stored near, or not."""
        entries = self._entries
        storable, ttl, now, record = arrival
        if record is not None and near:
            record = entries.near(record, self.digest, self._birth)
        elif record is not None:
            if entries.cache.store.is_cut(record.tags, self.flight.number):
                storable = None  # see `landing.land`
            record = None
        return storable, ttl, now, record

    def _let_go(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self._entries.link.keeper.let_go(lease)

    def _tell(self, outcome: Outcome, value: Any, error: BaseException | None) -> Generator[Any, Any, Any]:
        """Tell the server how the function ended. Return how it is to land."""
        entries, link, claim = self._entries, self._entries.link, self.claim
        period = link.period()
        with link.lock:
            step = claim.ran(outcome)
        if type(step) is claims.Land:
            return step
        aborted = error is not None and not isinstance(error, Exception)
        if aborted:  # nobody is to wait for that
            self.hand_over(step)
        if aborted or period is None:
            with link.lock:
                return claim.failed()
        replies, struck = yield [self._call(step)]
        trouble = struck if struck is not None else replies[0] if isinstance(replies[0], Trouble) else None
        if isinstance(trouble, Trouble):
            if link.failed(trouble, period):  # it answers: nobody is to wait until the lease ends
                self.hand_over(claims.Release(claim.retries))
            with link.lock:
                return claim.failed()
        if trouble is not None:  # an interrupt: whether it was told, nobody knows
            raise trouble
        answer = scripts.told(replies[0])
        if isinstance(answer, Refused) and error is None:
            entries.count("refused")
            if entries.cache.tell.wants("refused"):
                flight = self.flight
                entries.cache.tell.tell("refused", flight.key, value=value, flight_id=flight.ident)
        with link.lock:
            return claim.answered(answer)

    def _call(self, step: Any) -> scripts.Call:
        """Return what tells the server of the end of a flight."""
        entries, link, token = self._entries, self._entries.link, self.claim.token
        place, version, lease = self.place, entries.version, milliseconds(link.lease)
        if type(step) is claims.Release:
            return scripts.release(place, version, token, step, lease=lease)
        if type(step) is claims.Pass:
            return scripts.pass_on(place, version, token, step.envelope, lease=lease)
        head = scripts.news_head(entries.digest, self.digest, link.me)
        return scripts.publish(
            place, version, token, step, birth=self._birth, lease=lease, bus=link.bus_channel, head=head
        )

    def _outcome(self, value: Any, arrival: Any) -> Outcome:
        """Return what the server may be told of a value; raises `UnportableValue`."""
        entries = self._entries
        storable, ttl, _, record = arrival
        refused = not storable
        if storable and ttl > 0 and record is None:  # detached: who has come since must not have it
            return Outcome("aborted")
        try:
            envelope = entries.envelope_of(value, record, self._cut, refused)
            packed = entries.envelopes.pack(self._name, self._written, envelope)
        except OversizedValue as error:
            entries.say_once("oversized", self.flight.key, f"cannot be shared: {error}")
            return Outcome("unshareable")
        if refused:
            return Outcome("failed", packed)
        if record is None:
            return Outcome("value", packed)
        return Outcome("value", packed, *lives(envelope))

    def _failure(self, error: BaseException, ttl: float) -> Outcome:
        if is_unshared(error):
            return Outcome("aborted")
        entries = self._entries
        payload = failure_bytes(error, entries.link.name, entries.terms.errors)
        envelope = Envelope("failure", payload, self._cut, ttl=ttl)
        try:
            packed = entries.envelopes.pack(self._name, self._written, envelope)
        except OversizedValue as large:
            entries.say_once("failure", self.flight.key, f"is an error that cannot be shared: {large}")
            return Outcome("failed")
        return Outcome("failed", packed, *(lives(envelope) if ttl else (0, 0)))

    def _lost(self, _: Lease) -> None:
        """The keeper found that the lease has ended."""
        entries = self._entries
        with entries.link.lock:
            news = self.claim.renews and self.claim.lost()
        if news:
            entries.count("leases_lost")
            if entries.cache.tell.wants("lease_lost"):
                entries.cache.tell.tell("lease_lost", self.flight.key, flight_id=self.flight.ident)
