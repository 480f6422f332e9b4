"""One flight on its way by a server that is a script: what tests of a passage are made with."""

import struct
import threading
from types import SimpleNamespace

from singleflight import single_flight_ttl
from singleflight.core.flight import FLYING, Flight
from singleflight.fleet.claims import Publish, Release
from singleflight.fleet.cuts import Numbers
from singleflight.fleet.envelopes import Envelope, Envelopes
from singleflight.fleet.keybytes import key_bytes
from singleflight.fleet.mailboxes import Mailbox, Mailboxes
from singleflight.fleet.names import digest, name_of_digest
from singleflight.redis import scripts
from singleflight.redis.clients import Kind, Trouble
from singleflight.redis.entries import Entries, Terms
from singleflight.redis.passage import RUN, Passage

__all__ = ["AWAY", "CHANNEL", "HERE", "KEY", "NOT_TOLD", "PERIOD", "REFUSED", "TOLD", "WRITTEN"]
__all__ += ["Link", "Made", "Struck", "a_flight", "leased", "name_in", "place_in", "waiting"]

ME, BUS, CHANNEL, HERE = b"m" * 8, b"sf:bus", b"sf:p:me", "process 1"
KEY = ("a",)
WRITTEN = key_bytes(KEY)
PERIOD = 7
SIGNING_KEY = b"a key that is long enough to sign"
AWAY, REFUSED = Trouble(Kind.AWAY, "it is away"), Trouble(Kind.REFUSED, "READONLY")


class Struck(BaseException):
    pass


class Keeper:
    """Notes what it is given."""

    def __init__(self):
        self.held, self.orders = [], []

    def hold(self, lease, asked):
        lease.renewed = asked
        self.held.append(lease)

    def let_go(self, lease):
        self.held = [each for each in self.held if each is not lease]

    def hand_over(self, *orders):
        self.orders += [order.call for order in orders]
        for order in orders:
            order.done(None)


class Link:
    """What a passage asks of the link, and tells it."""

    prefix, me, bus_channel, channel, name, lease, era = "sf", ME, BUS, CHANNEL, HERE, 2.0, 3

    def __init__(self):
        self.lock = threading.RLock()
        self.bus, self.breaker = SimpleNamespace(up=True, hears=True), SimpleNamespace(state="connected")
        self.mailboxes, self.keeper = Mailboxes(), Keeper()
        self.connected, self.troubles, self.tokens = PERIOD, [], 0
        self.noted, self.asked_for, self.confirmed = {}, [], []
        self.cuts, self.learnt = {}, []
        self.all, self.taken = [], []

    def new_token(self):
        self.tokens += 1
        return b"t%d" % self.tokens

    def period(self):
        return self.connected

    def failed(self, trouble, period):
        self.troubles.append((trouble, period))
        return trouble.kind is not Kind.AWAY

    def pending(self):
        return bool(self.noted)

    def first_for(self, function, name):
        self.asked_for.append((function, name))
        return list(self.noted)

    def current(self, drop):
        return self.noted.get(drop)

    def takes(self, drop, anyway):
        assert not anyway
        self.taken.append(drop)
        return drop

    def is_sending(self, drop):
        return drop in self.taken

    def sent(self, drop):
        self.taken.remove(drop)

    def confirm(self, drop, reply):
        self.confirmed.append((drop, reply))
        del self.noted[drop]

    def known_cuts(self, tags):
        return {tag: self.cuts[tag] for tag in tags if tag in self.cuts}

    def learn_cuts(self, found, era):
        self.learnt.append((found, era))

    def functions(self):
        return self.all


class Codec:
    """Of values that are bytes."""

    def fingerprint(self, version):
        return f"v{version}".encode().ljust(8)

    def enclose(self, value):
        return ("none", b"") if value is None else ("value", value)

    def open(self, kind, payload):
        return None if kind == "none" else payload


class Made:
    """A passage, its flight, and what both have to do with."""

    def __init__(self, *, near_ttl=10.0, max_value=1000, errors=(), key=KEY, flight=None, **options):
        self.now = 1000.0  # by the function's timer
        self.events = []
        options = {
            "ttl": 60,
            "name": "prices",
            "timer": lambda: self.now,
            "listener": self.events.append,
            **options,
        }
        self.function = single_flight_ttl(**options)(lambda key: key)
        self.cache = self.function._self_cache
        self.link = Link()
        terms = Terms(near_ttl, max_value, SIGNING_KEY, errors)
        self.entries = Entries(self.link, self.cache, terms, Codec(), 7)
        self.link.all.append(self.entries)
        self.entries.learn(Numbers(0, 4), era=3)
        self.entries.digest_of_key = self.entries.known_as(WRITTEN)
        self.flight = a_flight(key, **(flight or {}))
        self.rung = []
        self.box = Mailbox(lambda: self.rung.append(1))
        self.passage = Passage(self.entries, self.flight, self.box)
        self.steps = self.passage.steps()
        self.place = place_in(0)
        self.name = name_in(0)

    def claim(self, mode="read", *, seen=0, chain=b"", place=None, token=b"t1"):
        """The call that asks for a value or the lease."""
        return scripts.claim(
            place or self.place,
            self.entries.version,
            token,
            mode,
            lease=2000,
            channel=CHANNEL,
            leader=HERE,
            most=self.entries.terms.max_value,
            seen=seen,
            chain=chain,
        )

    def publish(self, packed, fresh, life, instead=None, birth=77):
        head = scripts.news_head(self.entries.digest, self.entries.known_as(WRITTEN), ME)
        what = Publish(packed, fresh, life, instead)
        return scripts.publish(
            self.place, self.entries.version, b"t1", what, birth=birth, lease=2000, bus=BUS, head=head
        )

    def release(self, retries):
        return scripts.release(self.place, self.entries.version, b"t1", Release(retries), lease=2000)

    def pass_on(self, packed):
        return scripts.pass_on(self.place, self.entries.version, b"t1", packed, lease=2000)

    def packed(self, *args, name=None, **fields):
        return Envelopes(self.entries.version, 1000, SIGNING_KEY).pack(
            name or self.name, WRITTEN, Envelope(*args, **fields)
        )

    def found(self, *args, left=60_000, birth=55, **fields):
        """What the server answers where this is stored."""
        fields = {"last_cut": 4, "ttl": 60.0, **fields}
        return [b"v" + struct.pack(">QQQ", left, left, birth) + self.packed(*args, **fields)], None

    def ask(self, **options):
        """Have it ask."""
        assert next(self.steps) == [self.claim(**options)]

    def lead(self, retries=-1, birth=77, **options):
        """Have it come to its function, under a lease."""
        self.ask(**options)
        assert self.steps.send(leased(retries, birth)) is RUN

    def wait(self, left=1000, leader="process 2", chain=b"c"):
        """Have it wait for another process; return for how long."""
        self.ask()
        return self.steps.send(waiting(left, leader, chain))

    def end(self, came):
        """Send the last thing that came; return what is to land."""
        try:
            asked = self.steps.send(came)
        except StopIteration as ended:
            return ended.value
        raise AssertionError(f"it goes on: {asked}")

    def counted(self):
        return {name: number for name, number in self.entries.counted().items() if number}

    def told(self):
        """The kinds of the events that were told, all of its key."""
        assert all(event.key == KEY for event in self.events)
        return [event.kind for event in self.events]

    def has_left(self):
        """Nothing of it is left."""
        return not (self.entries.flying or len(self.link.mailboxes) or self.link.keeper.held)


def name_in(epoch):
    return name_of_digest(
        "sf", "prices", digest("prices", WRITTEN, epoch) if epoch else digest("prices", WRITTEN)
    )


def place_in(epoch):
    return scripts.place(name_in(epoch))


def a_flight(key=KEY, **fields):
    flight = Flight()
    fields = {
        "kind": "call",
        "background": False,
        "previous": None,
        "retries": None,
        "ident": 12,
        "detached": False,
        "lost": False,
        "state": FLYING,
        "started": 900.0,
        "due": 5.0,
        "number": 0,
        "followers": 0,
        "work": None,
        "unbegun": False,
        "life": None,
        **fields,
    }
    flight.key = key
    for name, value in fields.items():
        setattr(flight, name, value)
    return flight


def leased(retries=-1, birth=77):
    return [b"l" + struct.pack(">qQ", retries, birth)], None


def waiting(left=1000, leader="process 2", chain=b"c", kind=b"w"):
    name = leader.encode()
    framed = bytes((len(name),)) + name + bytes((len(chain),)) + chain
    return [kind + struct.pack(">Q", left) + framed], None


TOLD = ([1], None)
NOT_TOLD = ([-1], None)
