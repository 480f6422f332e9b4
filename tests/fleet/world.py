"""Some processes, a server and the messages between them, taken apart into moves that anybody may order.

What the processes do is what drivers, keeper and bus of the product do about one key, without their I/O: each
*move* is one thing that happens at one place: a script runs on the server, an answer or a message arrives, a
function ends, time passes. `Scene.faults` says how often what goes wrong. A claim, the drops and the server
may be replaced, and `bugs` plant what a driver could do wrong, so that it is seen that the judge sees it.

Values are numbers: the source's at the time when the function began. A drop raises that first, so an old
value is a smaller number. What is judged, at every move:

- a call is served no value from before a drop of which its process had heard when the call began;
- a lease that lives is not given away, so one function at most runs under it;
- a landing that was refused changes nothing, here or on the server;
- no wait is longer than a lease; time has to pass only where something went wrong, and then a lease at most;
- there are no more executions than the scene says;
- everything ends, all drops are confirmed in the end, and no value from before them is left anywhere.
"""

from dataclasses import dataclass, field, fields
from operator import attrgetter

from singleflight.fleet.claims import (
    Adopt,
    Ask,
    Claim,
    Land,
    Leave,
    Outcome,
    Pass,
    Publish,
    Release,
    Run,
    Share,
    Wait,
)
from singleflight.fleet.drops import Drops
from singleflight.fleet.replies import AGAIN, Found, Leased, Refused

from .model_server import ModelServer

KEY, VERSION, FUNCTION = "k", b"1", b"f"
LEASE = 999
SLACK = 21  # of a wait, and a millisecond of rounding
LIFE = 1_000_000
FAILURE = b"failed"
LOST = "no answer"
FULL = "no writes are taken"
UNSENT = "a drop that comes first is not taken"


class Violation(AssertionError):
    """Something that is promised was not kept."""


def judge(holds, words):
    if not holds:
        raise Violation(words)


@dataclass(frozen=True)
class Scene:
    """Who does what, and what may go wrong how often.

    `programs`: for each process its actors, for each of those what it does, one after another: "call",
    "refresh", "renew" (of a stale value that all have), "drop".
    """

    programs: tuple
    faults: dict = field(default_factory=dict)
    retries: int = 1
    fails: bool = False
    together: bool = False
    """The first execution ends only when all others wait for it."""
    loads: int | None = None
    """Executions at most."""
    stale: bool = False
    """A value is stored, near and on the server, that is to be renewed."""
    beginning: tuple = ()
    """Moves that have been made."""


@dataclass
class Actor:
    """A thread or task of the users: what it still has to do."""

    process: int
    ops: tuple
    flight: int | None = None
    least: int = 0
    noted: object = None  # a drop that is to be sent

    @property
    def is_idle(self):
        return self.flight is None and self.noted is None


@dataclass
class Flight:
    """A local flight and how far its driver is."""

    process: int
    claim: object
    step: object = None
    answer: object = None  # that is on its way, or lost
    aside: object = None  # a release that is to be told while the function goes on
    registered: bool = False
    deadline: int = 0
    running: bool = False
    value: bytes | None = None
    detached: bool = False
    hung: bool = False
    refused: bool = False
    background: bool = False
    ended: bool = False
    leader: int | None = None


@dataclass
class Process:
    """What a process knows."""

    number: int
    drops: Drops
    near: int | None = None
    seen: int = 0
    heard: bool = True  # the bus is there
    connected: bool = True
    keeper: bool = True
    dead: bool = False
    current: int | None = None
    inbox: list = field(default_factory=list)


def _fields(kind, *but):
    return attrgetter(*(each.name for each in fields(kind) if each.name not in but))


def _twin(thing):  # `copy.copy`, three times as fast
    twin = object.__new__(type(thing))
    twin.__dict__.update(thing.__dict__)
    return twin


def _twin_of_claim(claim):
    twin = object.__new__(type(claim))
    for name, value in zip(Claim.__slots__, _of_claim(claim), strict=True):
        setattr(twin, name, value)
    return twin


_of_actor = _fields(Actor)
_of_flight = _fields(Flight, "claim")
_of_process = _fields(Process, "drops", "inbox")
_of_claim = attrgetter(*Claim.__slots__)


class World:
    """One state of it all."""

    def __init__(self, scene, bugs=(), claims=Claim, server=ModelServer):
        self.scene, self.bugs, self.claims = scene, frozenset(bugs), claims
        self.server = server()
        self.truth = 1
        self.loads = 0
        self.allowed = 0  # milliseconds that may pass
        self.faults = dict(scene.faults)
        self.full = False  # the server takes no writes
        self.processes = [Process(number, Drops()) for number in range(len(scene.programs))]
        self.actors = [Actor(number, ops) for number, actors in enumerate(scene.programs) for ops in actors]
        self.flights = []
        self.executed = 0  # the newest drop that the server knows
        self.trace = ()
        for process in self.processes:
            self.server.subscribe(self._channel(process.number))
        self.server.subscribe("bus")
        if scene.stale:
            self.server.claim(KEY, VERSION, b"before", lease=LEASE, channel="")
            self.server.publish(KEY, VERSION, b"before", b"1", fresh=0, life=LIFE, birth=1)
            for process in self.processes:
                process.near = 1
            self.server.passes(1)
        for move in scene.beginning:
            self.do(move)

    def __repr__(self):
        return "\n".join(self.trace)

    # -- copies, to go another way from here

    def copied(self):
        twin = _twin(self)
        twin.server = self.server.copied()
        twin.faults = dict(self.faults)
        twin.actors = [_twin(actor) for actor in self.actors]
        twin.flights = [_twin(flight) for flight in self.flights]
        for flight in twin.flights:
            flight.claim = _twin_of_claim(flight.claim)
        twin.processes = [_twin(process) for process in self.processes]
        for process in twin.processes:
            process.inbox = list(process.inbox)
            drops, process.drops = process.drops, Drops()
            process.drops._number = drops._number
            process.drops._of = {function: dict(kept) for function, kept in drops._of.items()}
        return twin

    def snapshot(self):
        """Return what tells this state from others."""

        flights = [(*_of_flight(flight), *_of_claim(flight.claim)) for flight in self.flights]
        processes = [
            (*_of_process(process), tuple(process.inbox), *process.drops.unconfirmed())
            for process in self.processes
        ]
        return (
            self.server.snapshot(),
            self.truth,
            self.loads,
            self.executed,
            self.full,
            tuple(self.faults.values()),
            tuple(map(_of_actor, self.actors)),
            tuple(flights),
            tuple(processes),
        )

    # -- what may happen next

    def moves(self):
        """Return what can happen now; time that passes without a fault comes only where nothing else can."""
        moves = []
        for number, actor in enumerate(self.actors):
            if not self.processes[actor.process].dead and (
                actor.noted is not None or (actor.is_idle and actor.ops)
            ):
                moves.append(("goes_on", number))
            if actor.noted is not None and self.faults.get("lose"):
                moves.append(("drops_in_vain", number))
        for number, flight in enumerate(self.flights):
            moves += [(name, number) for name in self._moves_of(flight)]
        for number, process in enumerate(self.processes):
            if process.dead:
                continue
            if process.inbox:
                moves.append(("hears", number))
            if not process.heard:
                moves.append(("reconnects", number))
            if not process.connected:
                moves.append(("recovers", number))
            elif self._is_owed(process) and "no replay" not in self.bugs:
                moves.append(("sends", number))
        if self.full:
            moves.append(("takes_writes",))
        faults = [(name,) for name in ("restart", "fills") if self.faults.get(name)]
        for name in ("gap", "kill", "pause"):
            if self.faults.get(name):
                faults += [(name, process.number) for process in self.processes if self._can(name, process)]
        waits = any(self._waits(flight) for flight in self.flights)
        if waits and (self.faults.get("time") or not moves):
            moves.append(("time_passes",))
        return moves + faults

    def _can(self, fault, process):
        if process.dead:
            return False
        if fault == "gap":
            return process.heard
        running = any(flight.running and flight.process == process.number for flight in self.flights)
        return running and (fault == "kill" or process.keeper)

    def _is_owed(self, process):
        """Return True if a drop is left to the keeper."""
        here = [actor.noted for actor in self.actors if actor.process == process.number]
        return not self.full and any(drop not in here for drop in process.drops.unconfirmed())

    def _moves_of(self, flight):
        if flight.ended or self.processes[flight.process].dead:
            return
        if flight.aside is not None:
            yield "tells_aside"
            if self.faults.get("lose"):
                yield "loses_aside"
        if flight.answer is not None:
            yield "answered"
            return
        if isinstance(flight.step, Ask | Publish | Pass | Release):
            yield "asks"
            if self.faults.get("lose") and flight.claim.state != "ended":
                yield "asks_in_vain"
                yield "asks_deaf"
        elif isinstance(flight.step, Adopt | Share | Land | Leave):
            yield "ends"
            if self.faults.get("unread") and isinstance(flight.step, Adopt | Share):
                yield "cannot_read"
        elif flight.running and not flight.hung:
            if not self._is_first_too_soon():
                yield "returns"
            if self.faults.get("abort"):
                yield "aborts"
            if self.faults.get("unseat"):
                yield "unseats"
        early = isinstance(flight.step, Ask | Wait) and not flight.claim.withdrawn
        if early and self.faults.get("unseat"):
            yield "unseats"
        if isinstance(flight.step, Wait) and (self.server.now >= flight.deadline or flight.claim.withdrawn):
            yield "lapses"

    def _is_first_too_soon(self):
        if not self.scene.together or self.loads > 1:
            return False
        begun = [flight for flight in self.flights if isinstance(flight.step, Wait | Run)]
        return sum(actor.flight is not None for actor in self.actors) < len(self.actors) or len(begun) < len(
            {actor.process for actor in self.actors}
        )

    def _waits(self, flight):
        return (
            isinstance(flight.step, Wait)
            and not flight.claim.withdrawn
            and not flight.ended
            and not self.processes[flight.process].dead
            and flight.deadline > self.server.now
        )

    @property
    def is_over(self):
        """Return True if all have done what they had to."""
        return all(
            self.processes[actor.process].dead or (actor.is_idle and not actor.ops) for actor in self.actors
        )

    def do(self, move):
        """Make one of the moves, and judge."""
        name, *numbers = move
        self.trace = (*self.trace, " ".join(map(str, move)))
        getattr(self, f"_{name}")(*numbers)
        self._pump()
        if self.scene.loads is not None:
            judge(self.loads <= self.scene.loads, f"{self.loads} executions, {self.scene.loads} are allowed")

    def _holder(self):
        """Return the token whose lease lives, or None."""
        holder, until, *_ = self.server._entry(KEY).leases.get(VERSION, (None, 0))
        return holder if until > self.server.now else None

    # -- actors

    def _goes_on(self, number):
        actor = self.actors[number]
        process = self.processes[actor.process]
        if actor.noted is not None:
            noted, actor.noted = actor.noted, None
            if process.connected and not self.full:
                self._send(process, [noted])
            return
        op, *rest = actor.ops
        actor.ops = tuple(rest)
        if op == "drop":
            self.truth += 1
            self._forget_near(process)
            process.seen = self.truth
            actor.noted = process.drops.note("drop", FUNCTION, KEY.encode(), self.truth)
        else:
            self._board(number, op)

    def _drops_in_vain(self, number):
        """The drop cannot be sent; the keeper will, or a claim of the key."""
        self._lose()
        self.actors[number].noted = None
        self.processes[self.actors[number].process].connected = False

    def _board(self, number, op):
        actor = self.actors[number]
        process = self.processes[actor.process]
        actor.least = process.seen
        if op == "renew":
            self._set_out(process, "renew", None).background = True
        elif process.near is not None and op == "call" and not self.scene.stale:
            self._serve(number, process.near)
        elif process.current is not None:
            actor.flight = process.current
        else:
            mode = "force" if op == "refresh" else "read"
            self._set_out(process, mode, number)

    def _set_out(self, process, mode, leader, retries=None):
        retries = self.scene.retries if retries is None else retries
        number = len(self.flights)
        claim = self.claims(mode, b"%d of %d" % (number, process.number), retries, 1)
        flight = Flight(process.number, claim, leader=leader)
        self.flights.append(flight)
        flight.step = claim.begin()
        process.current = number
        if leader is not None:
            self.actors[leader].flight = number
        return flight

    def _serve(self, number, value):
        actor = self.actors[number]
        actor.flight = None
        if isinstance(value, int):
            judge(value >= actor.least, f"served {value}, after a drop that makes it {actor.least} at least")

    def _forget_near(self, process):
        process.near = None
        if process.current is not None:
            self.flights[process.current].detached = True
            process.current = None

    # -- flights and the server

    def _carry_out(self, flight):
        """Run the script of a flight's step, and return the answer."""
        process, step, token = self.processes[flight.process], flight.step, flight.claim.token
        server = self.server
        if not isinstance(step, Ask):
            return self._tell(flight, step)
        flight.registered = "late mailbox" not in self.bugs
        drops = process.drops.first_for(FUNCTION, KEY.encode())
        if self.full and drops and "peek past a drop" not in self.bugs:
            return UNSENT
        if self.full and step.mode != "peek":
            return FULL
        if "drop after claim" not in self.bugs and not self.full:
            self._send(process, drops)
        if step.mode == "peek":
            return server.peek(KEY, VERSION)
        channel, holder = self._channel(process.number), self._holder()
        answer = server.claim(
            KEY,
            VERSION,
            token,
            lease=LEASE,
            channel=channel,
            leader=channel,
            mode=step.mode,
            seen=step.seen,
            chain=step.chain,
        )
        judge(not isinstance(answer, Leased) or holder in (None, token), "a lease that lives is given away")
        if "drop after claim" in self.bugs:
            self._send(process, drops)
        return answer

    def _send(self, process, drops):
        for drop in drops:
            self._drop_on_server(drop)
            process.drops.confirmed(drop)

    def _tell(self, flight, step):
        server, token = self.server, flight.claim.token
        if self.full:
            return FULL
        if "publish without the token" in self.bugs:
            token = self._holder() or token
        before = server.snapshot()
        if isinstance(step, Publish):
            retries = None if step.instead is None else step.instead.retries
            told = server.publish(
                KEY,
                VERSION,
                token,
                step.envelope,
                fresh=step.fresh,
                life=step.life,
                birth=server.now,
                yields=step.instead is not None,
                retries=retries,
                lease=LEASE,
            )
        elif isinstance(step, Pass):
            told = server.pass_on(KEY, VERSION, token, step.envelope)
        else:
            retries = None if "retries not passed on" in self.bugs else step.retries
            told = server.release(KEY, VERSION, token, retries=retries, lease=LEASE)
        judge(told != Refused() or server.snapshot() == before, "a refused landing changed the server")
        return told

    def _drop_on_server(self, drop):
        self.executed = max(self.executed, drop.payload)
        self.server.drop(KEY)
        self._pump(drop.payload)

    def _asks(self, number):
        flight = self.flights[number]
        connected = self.processes[flight.process].connected
        if flight.claim.state == "ended":  # a lease that came too late is given back
            if connected:
                self._tell(flight, flight.step)
            flight.ended = True
        else:
            flight.answer = self._carry_out(flight) if connected else LOST

    def _asks_in_vain(self, number):
        self._lose()
        self.flights[number].answer = LOST

    def _asks_deaf(self, number):
        self._lose()
        flight = self.flights[number]
        if self.processes[flight.process].connected:
            self._carry_out(flight)
        flight.answer = LOST

    def _lose(self):
        self.faults["lose"] -= 1
        self.allowed += LEASE + SLACK

    def _answered(self, number):
        flight = self.flights[number]
        process = self.processes[flight.process]
        answer, flight.answer = flight.answer, None
        flight.registered = True
        if answer == LOST:
            process.connected = False
            self._take(flight, flight.claim.failed())
        elif answer == UNSENT:
            self._take(flight, flight.claim.failed())
        elif answer == FULL:
            self._take(flight, flight.claim.read_only())
        else:
            flight.refused = flight.refused or answer == Refused()
            self._take(flight, flight.claim.answered(answer, deaf=not process.heard))

    def _take(self, flight, step):
        if step is None:
            return
        flight.step = step
        if isinstance(step, Run):
            self.loads += 1
            flight.running = True
            flight.value = FAILURE if self.scene.fails else b"%d" % self.truth
        elif isinstance(step, Wait):
            left = round(step.seconds * 1000)
            flight.deadline = self.server.now + left
            judge(left <= LEASE + SLACK, "a wait is longer than a lease")

    def _returns(self, number):
        flight = self.flights[number]
        failed = flight.value == FAILURE
        outcome = Outcome(
            "failed" if failed else "value", flight.value, *((0, 0) if failed else (LIFE, LIFE))
        )
        flight.running = False
        self._take(flight, flight.claim.ran(outcome))

    def _aborts(self, number):
        self.faults["abort"] -= 1
        flight = self.flights[number]
        flight.running, flight.value = False, None
        self._take(flight, flight.claim.ran(Outcome("aborted")))

    def _unseats(self, number):
        """It has taken too long: the others fly anew, its caller is lost. If a function runs, it hangs."""
        self.faults["unseat"] -= 1
        flight = self.flights[number]
        flight.hung, flight.detached = flight.running, True
        flight.aside = flight.claim.told_off()
        process = self.processes[flight.process]
        if process.current == number:
            process.current = None
        if flight.leader is not None:
            leader = self.actors[flight.leader]
            leader.flight, leader.ops = None, ()
        self._board_anew(number)

    def _tells_aside(self, number):
        flight = self.flights[number]
        step, flight.aside = flight.aside, None
        if self.processes[flight.process].connected:
            self._tell(flight, step)

    def _loses_aside(self, number):
        self._lose()
        self.flights[number].aside = None

    def _cannot_read(self, number):
        self.faults["unread"] -= 1
        flight = self.flights[number]
        self._take(flight, flight.claim.unreadable())

    def _lapses(self, number):
        flight = self.flights[number]
        self._take(flight, flight.claim.lapsed())

    def _ends(self, number):
        """The flight lands, near first, and its callers are served; or those of an abort board again."""
        flight = self.flights[number]
        process, step = self.processes[flight.process], flight.step
        value = flight.value
        if isinstance(step, Adopt):
            value = step.found.envelope
        elif isinstance(step, Share):
            value = step.envelope
        stored = isinstance(step, Adopt) or (isinstance(step, Land) and step.near)
        if value is not None and value != FAILURE:
            value = int(value)
            if (
                stored
                and not isinstance(step, Leave)
                and (not flight.detached or "no detaching" in self.bugs)
            ):
                process.near = value
        if isinstance(step, Land):
            judge(not (step.near and flight.refused), "a refused landing changes near entries")
        flight.ended = True
        if process.current == number:
            process.current = None
        if isinstance(step, Leave) or value is None:
            self._board_anew(number)
        elif value == FAILURE and isinstance(step, Land) and flight.claim.retries:
            if flight.leader is not None:
                self._serve(flight.leader, value)
            self._board_anew(number, flight.claim.retries - 1)
        else:
            for other, actor in enumerate(self.actors):
                if actor.flight == number:
                    self._serve(other, value)

    def _board_anew(self, number, retries=None):
        process = self.processes[self.flights[number].process]
        for other, actor in enumerate(self.actors):
            if actor.flight == number:
                actor.flight = None
                if process.current is None:
                    self._set_out(process, "read", other, retries)
                actor.flight = process.current

    # -- messages, time, and what goes wrong

    def _channel(self, number):
        return f"p{number}"

    def _pump(self, truth=0):
        """What the server published is on its way to those who are subscribed."""
        for process in self.processes:
            for message in self.server.hear(self._channel(process.number)):
                process.inbox.append(message)
        for kind, _ in self.server.hear("bus"):
            for process in self.processes:
                if process.heard and kind == "drop" and not process.dead:
                    process.inbox.append(truth)

    def _hears(self, number):
        process = self.processes[number]
        message = process.inbox.pop(0)
        if isinstance(message, int):
            if message > process.seen:  # or it is its own, or one that it has already obeyed
                process.seen = message
                self._forget_near(process)
        else:
            self._wake(process, message[2])

    def _wake(self, process, wake):
        for flight in self.flights:
            here = flight.process == process.number and flight.registered and not flight.ended
            if here and flight.claim.state in ("asking", "waiting"):
                self._take(flight, flight.claim.woken(wake))

    def _gap(self, number):
        self.faults["gap"] -= 1
        self._lose_bus(self.processes[number])

    def _lose_bus(self, process):
        process.heard = False
        process.inbox.clear()
        self.server.subscribed.discard(self._channel(process.number))
        self.server.hear(self._channel(process.number))

    def _reconnects(self, number):
        process = self.processes[number]
        process.heard = True
        process.seen = max(process.seen, self.executed)
        self.server.subscribe(self._channel(number))
        if "no flush after a gap" not in self.bugs:
            self._forget_near(process)
        if "nobody asks after a gap" not in self.bugs:
            self._wake(process, AGAIN)

    def _recovers(self, number):
        process = self.processes[number]
        if "no replay" not in self.bugs and not self.full:
            self._send(process, process.drops.unconfirmed())
        process.connected = True

    def _sends(self, number):
        """Its keeper sends what was left to it while the server took no writes."""
        process = self.processes[number]
        self._send(process, process.drops.unconfirmed())

    def _fills(self):
        """The server takes no writes, for a while: leases may end meanwhile, and cannot be told."""
        self.faults["fills"] -= 1
        self.allowed += 2 * (LEASE + SLACK)
        self.full = True

    def _takes_writes(self):
        self.full = False

    def _kill(self, number):
        self.faults["kill"] -= 1
        self.allowed += LEASE + SLACK
        self.processes[number].dead = True
        self._lose_bus(self.processes[number])

    def _pause(self, number):
        """Its keeper gets no time any more."""
        self.faults["pause"] -= 1
        self.allowed += LEASE + SLACK
        self.processes[number].keeper = False

    def _restart(self):
        """The server is killed and comes back empty."""
        self.faults["restart"] -= 1
        fresh = type(self.server)()
        fresh.now = self.server.now
        fresh.subscribe("bus")
        self.server = fresh
        for process in self.processes:
            if not process.dead:
                self._lose_bus(process)

    def _time_passes(self):
        """Until the next wait is over; the keepers renew meanwhile."""
        until = min(flight.deadline for flight in self.flights if self._waits(flight))
        if self.faults.get("time"):
            self.faults["time"] -= 1
        else:
            self.allowed -= until - self.server.now
            judge(self.allowed >= 0 or self._is_deaf(), "time has to pass though a wake should have come")
        while self.server.now < until:
            self.server.now = min(until, self.server.now + LEASE // 3)
            for flight in self.flights:
                process = self.processes[flight.process]
                works = process.keeper and process.connected and not process.dead and not self.full
                if works and flight.claim.renews:
                    self._renew(flight)

    def _renew(self, flight):
        if not self.server.renew(KEY, VERSION, flight.claim.token, lease=LEASE):
            flight.claim.lost()
            flight.refused = True

    def _is_deaf(self):
        return not all(process.heard for process in self.processes)


def explore(world, most=200_000, at_end=None):
    """Go all ways from here. Return the numbers of states and of ends; raises a `Violation` with its way."""
    seen, ends, way = set(), 0, [world]
    while way:
        here = way.pop()
        moves = here.moves()
        if not moves:
            ends += 1
            (at_end or judge_end)(here)
        for move in moves:
            there = here.copied()
            try:
                there.do(move)
            except Violation as violation:
                raise Violation(f"{violation}, after\n{there}") from None
            state = there.snapshot()
            if state not in seen:
                seen.add(state)
                judge(len(seen) <= most, f"more than {most} states")
                way.append(there)
    return len(seen), ends


def judge_end(world):
    """Nothing can happen any more, and all has been heard: is it as it should be?"""
    try:
        judge(world.is_over, "somebody waits for ever")
        stored = world.server.peek(KEY, VERSION)
        judge(
            not isinstance(stored, Found) or int(stored.envelope) >= world.executed, "an old value is stored"
        )
        for process in world.processes:
            if not process.dead:
                judge(not len(process.drops), "a drop was forgotten")
                judge(process.near is None or process.near >= world.executed, "an old value is near")
    except Violation as violation:
        raise Violation(f"{violation}, after\n{world}") from None
