"""Tags go by numbers: what a process knows of them, and every order of cuts, loads and reads."""

from copy import copy

import pytest

from singleflight.fleet.cuts import MOST, Known, Numbers, is_cut
from singleflight.fleet.replies import Found, Leased

from .model_server import ModelServer
from .world import Violation, explore, judge

# -- what a process knows ------------------------------------------------------------------------------


def test_numbers_are_not_known_before_they_were_asked_for():
    """What is heard or seen before tells what was given, and not what holds."""
    known = Known()
    known.saw(Numbers())
    assert (known.now, known.ever) == (None, (0, 0))
    known.saw(Numbers(3, 5))
    assert known.heard_epoch(4)
    assert not known.heard_cut(7)
    assert (known.now, known.ever) == (None, (4, 7))
    known.learn(Numbers(2, 6))
    assert (known.now, known.ever) == ((2, 6), (4, 7))


def test_what_is_learnt_and_seen_only_grows():
    """Each number for itself: answers may overtake each other."""
    known = Known()
    known.learn(Numbers(3, 5))
    known.learn(Numbers(2, 6))
    assert known.now == known.ever == (3, 6)
    known.saw(Numbers(cut=8))
    known.saw(Numbers(epoch=1))
    assert known.now == known.ever == (3, 8)
    known.heard_cut(9)
    assert known.now == known.ever == (3, 9)
    known.saw(Numbers(cut=2), carried=11)  # by an entry: the server may have lost it
    assert (known.now, known.ever) == ((3, 9), (3, 11))


def test_after_a_gap_the_server_is_asked():
    """And may know less than was known before, which is kept for the next cut."""
    known = Known()
    known.learn(Numbers(3, 5))
    known.forget()
    assert (known.now, known.ever) == (None, (3, 5))
    known.learn(Numbers(0, 1))
    assert (known.now, known.ever) == ((0, 1), (3, 5))


def test_an_epoch_that_is_heard():
    """A higher one holds, the known one is no news, and after a lower one the server is asked."""
    known = Known()
    known.learn(Numbers(3, 5))
    assert not known.heard_epoch(3)
    assert known.heard_epoch(4)
    assert known.now == (4, 5)
    assert known.heard_epoch(2)
    assert (known.now, known.ever) == (None, (4, 5))


def test_a_cut_that_is_not_above_the_last_one_is_made_again():
    """As far as the bus tells: what was seen elsewhere may have overtaken it. The first may be any."""
    assert not Known().heard_cut(1)
    known = Known()
    known.learn(Numbers(0, 9))
    heard = [known.heard_cut(number) for number in (7, 8, 8, 6, 10, 9)]
    assert heard == [False, False, True, True, False, True]
    known.heard_cut(MOST)
    assert not known.heard_cut(10)  # it would not get above that: no cut is made again and again


def test_an_entry_is_dropped_by_a_later_cut_of_any_of_its_tags():
    """Not by the one that was known when its flight began."""
    assert is_cut([3, 6], 5)
    assert not is_cut([3, 5], 5)
    assert not is_cut([0], 0)
    assert not is_cut([], 0)


# -- every order ---------------------------------------------------------------------------------------

KEY, VERSION, TAG, LONG = "k", b"1", "t", 10**9


class Process:
    """What a process knows. `is_new`: it was started in the midst of it all, and has heard nothing yet."""

    def __init__(self, is_new=False):
        self.known = Known()
        self.tag = None  # the tag's last cut; None: it is not known
        self.near = None
        self.drops = 0  # of what is near: what was asked for before is not stored
        self.seen = 0  # the newest change that it has heard of
        self.up = not is_new
        self.inbox = ()
        self.pending = ()  # cuts that it is to make

    def copied(self):
        twin, twin.known = copy(self), copy(self.known)
        return twin

    def snapshot(self):
        known = self.known.now, self.known.ever, self.known._heard
        return (known, *(value for name, value in sorted(vars(self).items()) if name != "known"))

    def drop(self):
        self.near = None
        self.drops += 1


class Actor:
    """Calls and cuts, one after another, of a process; a call is at one of the stages that `Cuts` has."""

    def __init__(self, process, ops):
        self.process, self.ops = process, ops
        self.stage = None
        self.mode = "read"
        self.least = self.cut = self.drops = self.value = self.found = None


class Cuts:
    """Processes that load one key with one tag, cut the tag, and read; and a server, which may forget.

    A value is the number of changes that were made when its function began; each cut follows on a change.
    """

    def __init__(self, programs, faults=(), bugs=(), new=(), server=ModelServer, beginning=()):
        self.bugs, self.faults = frozenset(bugs), tuple(faults)
        self.server = server()
        self.server.now = 5000
        self.server.subscribe("bus")
        self.processes = [Process(number in new) for number in range(len(programs))]
        self.actors = [Actor(number, ops) for number, actors in enumerate(programs) for ops in actors]
        self.changes = self.executed = 0
        self.cuts = ()  # of each that the server made: its number, who made it, and after how many changes
        self.trace = ()
        for move in beginning:
            self.do(move)

    def __repr__(self):
        return "\n".join(self.trace)

    def copied(self):
        twin = copy(self)
        twin.server = self.server.copied()
        twin.processes = [process.copied() for process in self.processes]
        twin.actors = [copy(actor) for actor in self.actors]
        return twin

    def snapshot(self):
        return (
            self.server.snapshot(),
            tuple(process.snapshot() for process in self.processes),
            tuple(tuple(vars(actor).values()) for actor in self.actors),
            self.changes,
            self.executed,
            self.cuts,
            self.faults,
        )

    def moves(self):
        moves = []
        for number, actor in enumerate(self.actors):
            if actor.stage is not None and (actor.stage != "wait" or not self._is_led()):
                moves.append((actor.stage, number))
            elif actor.stage is None and actor.ops:
                moves.append(("begin", number))
        for number, process in enumerate(self.processes):
            if process.pending:
                moves.append(("send", number))
            if process.inbox:
                moves.append(("hear", number))
            if not process.up:
                moves.append(("connect", number))
        moves += {(fault,) for fault in self.faults if fault != "gap"}
        if "gap" in self.faults:
            moves += [("gap", number) for number, process in enumerate(self.processes) if process.up]
        return moves

    def do(self, move):
        name, *numbers = move
        self.trace = (*self.trace, " ".join(map(str, move)))
        if name in self.faults:
            at = self.faults.index(name)
            self.faults = self.faults[:at] + self.faults[at + 1 :]
        getattr(self, f"_{name}")(*numbers)
        for message in self.server.hear("bus"):
            for process in self.processes:
                if process.up and message[0] == "cut":
                    process.inbox += (message[2],)

    def _is_led(self):
        lease = self.server._entry(KEY).leases.get(VERSION)
        return lease is not None and lease[1] > self.server.now

    # -- what the users do

    def _begin(self, number):
        actor = self.actors[number]
        process = self.processes[actor.process]
        op, *actor.ops = actor.ops
        actor.ops = tuple(actor.ops)
        if op == "cut":
            self.changes += 1
            process.drop()
            process.seen = self.changes
            process.pending += (self.changes,)
            return
        actor.least, actor.mode, actor.cut = process.seen, "read", 0
        if process.near is not None:
            self._serve(actor, process.near)
        else:
            actor.stage = "ask"

    def _serve(self, actor, value):
        actor.stage = None
        judge(value >= actor.least, f"served {value}, {actor.least} at least was to be served")

    # -- a flight: what is known, then the claim, then what is found or run

    def _ask(self, number):
        actor = self.actors[number]
        process = self.processes[actor.process]
        while process.pending:
            self._send(actor.process)
        actor.cut = max(actor.cut, self._numbers(process).cut)
        actor.drops = process.drops
        actor.stage = "claim"

    def _numbers(self, process):
        if not process.up:
            return self.server.numbers()
        if process.known.now is None:
            process.known.learn(self.server.numbers())
        return process.known.now

    def _claim(self, number):
        actor = self.actors[number]
        token = b"%d" % number
        answer = self.server.claim(KEY, VERSION, token, lease=LONG, channel="", mode=actor.mode)
        if isinstance(answer, Found):
            actor.found, actor.stage = answer.envelope, "read"
        elif isinstance(answer, Leased):
            actor.value, actor.stage = self.changes, "land"
        else:
            actor.stage = "wait"

    def _wait(self, number):
        self.actors[number].stage = "ask"

    def _read(self, number):
        actor = self.actors[number]
        process = self.processes[actor.process]
        value, last = actor.found
        tag = process.tag if process.up else None
        if tag is None:
            tag = self.server.cut_of(TAG)
            process.tag = tag if process.up else None
        process.known.saw(Numbers(cut=tag), carried=last)
        actor.cut = max(actor.cut, tag)
        if is_cut([tag], last):
            actor.mode, actor.stage = "force", "ask"
        else:
            self._keep(actor, value)
            self._serve(actor, value)

    def _land(self, number):
        actor = self.actors[number]
        process = self.processes[actor.process]
        cut = self._numbers(process).cut if "known at the landing" in self.bugs else actor.cut
        token = b"%d" % number
        self.server.publish(KEY, VERSION, token, (actor.value, cut), fresh=LONG, life=LONG, birth=1)
        self._keep(actor, actor.value)
        self._serve(actor, actor.value)

    def _keep(self, actor, value):
        process = self.processes[actor.process]
        if actor.drops == process.drops:
            process.near = value

    # -- cuts, and how they are heard

    def _send(self, number):
        process = self.processes[number]
        change, *rest = process.pending
        process.pending = tuple(rest)
        known = 0 if "known is not told" in self.bugs else process.known.ever.cut
        cut = self.server.cut(TAG, known)
        self.executed = max(self.executed, change)
        self.cuts += ((cut, number, change),)
        process.known.saw(Numbers(cut=cut))
        if process.tag is not None:
            process.tag = max(process.tag, cut)

    def _hear(self, number):
        process = self.processes[number]
        cut, *rest = process.inbox
        process.inbox = tuple(rest)
        by, change = next((by, change) for made, by, change in reversed(self.cuts) if made == cut)
        process.tag = max(process.tag or 0, cut)
        if process.known.heard_cut(cut) and "not made again" not in self.bugs:
            process.pending += (change,)
        if by != number:
            process.seen = max(process.seen, change)
            process.drop()

    def _connect(self, number):
        process = self.processes[number]
        process.up = True
        process.drop()
        process.seen = max(process.seen, self.executed)
        if "believed after a gap" not in self.bugs:
            process.tag = None
            process.known.forget()

    # -- what goes wrong

    def _gap(self, number):
        self.processes[number].up = False
        self.processes[number].inbox = ()

    def _step(self):
        self.server.now -= 1000

    def _lose(self):
        self.server.loses_numbers()

    def judge_end(self):
        """Everything has been heard: nothing old is near, nor served to whoever asks."""
        try:
            stored = self.server.peek(KEY, VERSION)
            if isinstance(stored, Found):
                value, last = stored.envelope
                old = value < self.executed and not is_cut([self.server.cut_of(TAG)], last)
                judge(not old, "an old value would be served")
            for process in self.processes:
                judge(process.near is None or process.near >= self.executed, "an old value is near")
        except Violation as violation:
            raise Violation(f"{violation}, after\n{self}") from None


CALL, CUT = (("call",),), (("cut",),)
TWICE = (("call", "call"),)
# The first process has loaded, the second has found that and asked for the cut of its tag.
BOTH = tuple(
    (stage, number) for number, end in enumerate(("land", "read")) for stage in ("begin", "ask", "claim", end)
)
# The first process has cut, all have heard, it has loaded; then the clock is set back and numbers are lost.
BEFORE = tuple(
    [("begin", 0), ("send", 0), ("hear", 0), ("hear", 1)]
    + [(stage, 0) for stage in ("begin", "ask", "claim", "land")]
    + [("step",), ("lose",)]
)
FORGOTTEN = {
    "programs": ((("cut", "call"),), CALL, CUT),
    "faults": ("step", "lose"),
    "new": {2},
    "beginning": BEFORE,
}
SCENES = {
    "a cut elsewhere": {"programs": (TWICE, CUT)},
    "two load, one of them cuts": {"programs": (CALL + CUT, TWICE)},
    "a cut, and a call after it": {"programs": ((("cut", "call"),), CALL)},
    "two cuts": {"programs": (CALL, CUT, CUT)},
    "the clock steps back": {"programs": (TWICE, CUT + CUT), "faults": ("step",)},
    "the clock steps back between two cuts": {"programs": (CALL, (("cut", "cut"),)), "faults": ("step",) * 2},
    "the bus is away": {"programs": (CALL, TWICE, CUT), "faults": ("gap",), "beginning": BOTH},
    "the numbers are lost": {"programs": (TWICE, CUT + CUT), "faults": ("lose",)},
    "both, and who cuts has heard": {
        "programs": ((("cut", "call", "cut"),), CALL),
        "faults": ("step", "lose"),
        "beginning": BEFORE[:4],
    },
    "both, and who cuts is new": FORGOTTEN,
}


@pytest.mark.parametrize("name", SCENES)
def test_every_order_drops_what_was_cut(name):
    """For each reader as soon as it has heard, and in the end for everybody."""
    _, ends = explore(Cuts(**SCENES[name]), at_end=Cuts.judge_end)
    assert ends


class Clocked(ModelServer):
    """A server whose cuts are its time, as entries' births would be."""

    def cut(self, tag, known=0):
        self.last_cut = self.cuts[tag] = max(self.now, self.cuts.get(tag, 0))
        self._tell("bus", ("cut", tag, self.last_cut))
        return self.last_cut


class Shared(ModelServer):
    """A server that goes on from the tag's number, and not from the function's."""

    def cut(self, tag, known=0):
        self.cuts[tag] = self.cuts.get(tag, 0) + 1
        self._tell("bus", ("cut", tag, self.cuts[tag]))
        return self.cuts[tag]

    def numbers(self):
        return Numbers(self.epoch, self.now)


PLANTED = {
    "the number is that of the landing": ("a cut elsewhere", {"bugs": {"known at the landing"}}),
    "numbers are the server's time": (
        "the clock steps back between two cuts",
        {"server": Clocked, "bugs": {"not made again"}},
    ),
    "births are the server's time": ("a cut elsewhere", {"server": Shared}),
    "who cuts does not say what it knows": (
        "both, and who cuts has heard",
        {"bugs": {"known is not told", "not made again"}},
    ),
    "nobody makes a cut again": ("both, and who cuts is new", {"bugs": {"not made again"}}),
    "what was known is believed after a gap": ("the bus is away", {"bugs": {"believed after a gap"}}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name):
    """By an old value."""
    scene, bug = PLANTED[name]
    with pytest.raises(Violation, match=r"old value|served"):
        explore(Cuts(**SCENES[scene], **bug), at_end=Cuts.judge_end)
