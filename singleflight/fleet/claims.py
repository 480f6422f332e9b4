"""What one local flight says to the server, and what it does about the answers: a state machine without I/O.

A driver makes a `Claim` when its flight sets out, carries out the step that `begin` returns, reports what
happened, and is told the next step. Times are milliseconds, as the server counts; `Wait` says seconds.

    state    event                          then     step
    -------  -----------------------------  -------  ----------------------------------------------------
    NEW      begin                          ASKING   Ask(mode)
    ASKING   answered(Found)                FOUND    Adopt
    ASKING   answered(Leased)               LEADING  Run(leased)
    ASKING   answered(Waiting)              WAITING  Wait; what `woken` says if a wake came before this
    ASKING   answered(Passed)               FOUND    Share; Run, ALONE, if it cannot be shared
    ASKING   answered(Renewing)             ENDED    Leave
    ASKING   answered(Absent)               ALONE    Run
    ASKING   answered(Oversized)            ASKING   Ask(force); the second time ALONE, Run
    ASKING   woken                          ASKING   (goes on; the wake is noted)
    ASKING   failed                         ALONE    Run
    ASKING   read_only                      ASKING   Ask(peek), once and after Ask(read); or else ALONE, Run
    WAITING  woken(value)                   FOUND    Adopt
    WAITING  woken(passed)                  FOUND    Share; Run, ALONE, if it cannot be shared
    WAITING  woken(again), lapsed           ASKING   Ask(mode); also woken for another chain
    WAITING  failed                         ALONE    Run
    FOUND    unreadable                     ASKING   Ask(force); the second time ALONE, Run
    FOUND    outdated                       ASKING   Ask(force); the fifth time ALONE, Run
    LEADING  ran                            TELLING  Publish, Pass or Release: see `Outcome`
    LEADING  lost                           ALONE    (goes on)
    LEADING  told_off                       ALONE    Release, while the function goes on
    ALONE    ran                            ENDED    Land(near), near unless the claim was lost or told off
    TELLING  answered(Told)                 ENDED    Land(near)
    TELLING  answered(Refused)              ENDED    Land(not near)
    TELLING  failed, read_only              ENDED    Land(near)
    ALONE, TELLING, ENDED  lost             (stays)  (goes on)
    all others             told_off         (stays)  (goes on); a later Ask or Run is Leave, ENDED, instead,
                                                     and a lease that comes is given back: Release, ENDED
    LEADING  forked                         ALONE    (goes on, in the child)
    all others             forked           (stays)  (goes on)
    ASKING, LEADING, TELLING  given_up      ENDED    Release
    all others             given_up         ENDED    (goes on)

Anything else raises `IllegalEvent` and changes nothing. A step of a claim that has ENDED is the last: nothing
is reported of it.

Why each is so:

- *Ask* registers the claim's mailbox before it talks, and the script that finds the lease taken registers the
  process's channel. So no wake falls between the two; one that overtakes the answer is noted.
- A wake that never comes is made good when the lease that is waited for has ended (`lapsed`). So every wait
  is covered by a lease that was live at the last answer, plus a claim.
- Leases belong to a *chain*: a flight and those that retry it. A drop ends chains. A wake counts only with
  the chain that the claim waits for, or it asks again: what was sent before this process's own drop may come
  after it. So a wake that is late, doubled or meant for the round before costs one question.
- Who is woken to ask again may come when all is over: the next flight has failed as well, and passed that to
  those who waited then. So a claim says which chain it waited for, and is told how that ended (`Passed`, or
  `Found` even with force) for as long as a lease. Or else a hundred processes would run a function that fails
  at once a hundred times.
- The *token* fences: what is told to the server at the end counts only while the lease is this claim's own.
  `Refused` and `lost` say that it was not. The callers of this flight receive their value then, near and
  shared entries do not change.
- When the end could not be told, the value is stored near, as it is when degraded: it may be one message of
  the bus old, as any near entry may be.
- The *retries* are those of the fleet: they travel in the lease. A flight that failed frees the lease and
  notes what is left for those who wait; with nothing left it passes its outcome to all of them. An abort
  spends nothing. `None` is no limit, and nothing is noted.
- A stored value that cannot be read is as good as none: the claim asks for a lease whatever is stored, and
  runs the function by itself if what comes then cannot be read either. So it cannot go round for ever.
- So is one that was invalidated by its tag (`cuts`), but then what comes next is likely to be good: whoever
  leads next has found that out as well. Only cuts that go on and on have it run the function by itself.
- A claim that has been told off no longer renews its lease (`renews`), or nobody could take over from a
  function that hangs.

A claim has no lock: call its methods under one lock, the mutex, and carry out the step when that is free. The
driver alone reports events, but for `lost` and `told_off`, which may come from any thread at any time. What
comes by the bus waits in a mailbox until the driver takes it from there (`mailboxes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .replies import (
    Absent,
    Answer,
    Found,
    Leased,
    Oversized,
    Passed,
    Refused,
    Renewing,
    Told,
    Waiting,
    Wake,
)

__all__ = [
    "Adopt",
    "Ask",
    "Claim",
    "IllegalEvent",
    "Land",
    "Leave",
    "Mode",
    "Outcome",
    "Pass",
    "Publish",
    "Release",
    "Run",
    "Share",
    "Step",
    "Wait",
]

Mode: TypeAlias = Literal["read", "renew", "force", "peek"]
"""What satisfies a claim, and what it does where another process leads.

    read    any value that may be served, a stale one too; or else it leads, or waits
    renew   a value that is fresh and younger than `seen`; or else it leads, or leaves
    force   no stored value; it leads, or waits for the outcome of who does
    peek    any value that may be served; it takes no lease and writes nothing
"""

State: TypeAlias = Literal["new", "asking", "waiting", "found", "leading", "alone", "telling", "ended"]
NEW: Final = "new"
ASKING: Final = "asking"  # a question is out
WAITING: Final = "waiting"  # another process leads
FOUND: Final = "found"  # a value or an outcome came, and is decoded: the end, unless it cannot be
LEADING: Final = "leading"  # the function runs, under a lease
ALONE: Final = "alone"  # the function runs, and the server will not hear of it
TELLING: Final = "telling"  # the function has ended, the server is being told
ENDED: Final = "ended"


class IllegalEvent(AssertionError):
    """A driver reported what cannot happen in this state. Nothing changed."""


# -- steps: what the driver is to do ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Register the mailbox, emptied, then run CLAIM; with peek, read alone.

    `seen` is the birth of the value to be renewed, `chain` what the claim has waited for (or empty).

    A claim of a key whose drop is not confirmed sends that first (see `drops`), and has failed if that is not
    taken: what is stored was dropped. Then: answered, failed or read_only.
    """

    mode: Mode
    seen: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a wake, for so many seconds at most. Then: woken, lapsed, or failed if the server went away.

    `leader` is the name of the process that leads.
    """

    seconds: float
    leader: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """Land a stored value. The end, unless it is reported to be unreadable or outdated."""

    found: Found


@dataclass(frozen=True, slots=True)
class Share:
    """End with what the leader did not store: a refused value, a failure; it is not retried here.

    The end, unless it is reported to be unreadable.
    """

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Run the function, then report `ran`.

    `retries` are those of the local flight from now on, `birth` is the server's time or None. Without a
    lease the server hears nothing of it; with one, the keeper renews it as long as `Claim.renews`.
    """

    retries: int | None
    leased: bool
    birth: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Free the lease, note the retries if anybody waits (None: nothing is noted), and wake all with AGAIN."""

    retries: int | None


@dataclass(frozen=True, slots=True)
class Pass:
    """Free the lease and wake the waiters with the envelope; empty: each is to run the function by itself."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Publish:
    """Store the envelope, free the lease, wake the waiters with it. Then: answered, failed or read_only.

    It is fresh for `fresh`, and may be served for `life`. If anybody waits and there is an `instead`, the
    server does that and stores nothing.
    """

    envelope: bytes
    fresh: int
    life: int
    instead: Release | None = None


@dataclass(frozen=True, slots=True)
class Land:
    """The end of a flight that ran the function. Near entries change if `near`."""

    near: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """The end, without an outcome: as an abort of the local flight, which spends no retries."""


Step: TypeAlias = Ask | Wait | Adopt | Share | Run | Publish | Pass | Release | Land | Leave


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the function ended, and what the server is told if the claim leads.

    kind         what happened                       step
    value        it returned what can be shared      Publish; Pass if it is not to be stored (life 0)
    failed       it raised, or `cache_if` refused    with retries left: Release, with one less
                 its value                           with none: Pass
    aborted      an interrupt, a cancellation        Release
    unshareable  its value cannot be sent            Pass, empty

    A failure to be stored (`failure_ttl`: life above 0) is published unless somebody waits and retries are
    left. It never takes the place of a value: a claim that may have found one (renew, force) stores none.
    """

    kind: Literal["value", "failed", "aborted", "unshareable"]
    envelope: bytes = b""
    fresh: int = 0
    life: int = 0


# -- the machine --------------------------------------------------------------------------------------

_SLACK = 0.02  # seconds past the end of a lease: a last wake may be on its way
_OUTDATED = 4  # times that a value may be found outdated
_DEAF = 0.05  # seconds between questions of a process that hears no wakes


class Claim:
    """The dealings of one local flight with the server.

    Args:
        mode: what satisfies it.
        token: names its lease; no other claim has the same.
        retries: what the local flight may still be retried; None: without limit.
        seen: the birth of the value to be renewed (mode renew).
    """

    __slots__ = (
        "_asks",
        "_chain",
        "_noted",
        "_passed_over",
        "mode",
        "retries",
        "seen",
        "state",
        "token",
        "withdrawn",
    )

    def __init__(self, mode: Mode, token: bytes, retries: int | None, seen: int = 0) -> None:
        self.mode: Mode = mode
        self.token: bytes = token
        self.retries = retries
        self.seen: int = seen
        self.state: State = NEW
        self.withdrawn: bool = False  # the lease was lost, or the claim told off
        self._asks: Mode = mode  # of the question that is out
        self._chain = b""  # that it waited for
        self._noted: Wake | None = None  # came while the question was out
        self._passed_over = 0  # values that were found, and could not be taken

    def __repr__(self) -> str:
        return f"<Claim {self.mode} {self.state}>"

    @property
    def renews(self) -> bool:
        """Return True while the lease is to be renewed."""
        return self.state == LEADING

    @property
    def runs(self) -> bool:
        """Return True while the function runs here, under a lease or without."""
        return self.state == LEADING or self.state == ALONE

    def begin(self) -> Step:
        """The local flight has set out."""
        self._expect("begin", NEW)
        return self._ask(self.mode)

    def answered(self, answer: Answer, deaf: bool = False) -> Step:
        """The server answered. `deaf`: the process hears no wakes now, so that it asks often."""
        self._expect("answered", ASKING, TELLING)
        if self.state == TELLING:
            if not isinstance(answer, Told | Refused):
                raise IllegalEvent(f"answered {answer} while {TELLING}")
            return self._land(isinstance(answer, Told) and not self.withdrawn)
        match answer:
            case Found():
                self.state = FOUND
                return Adopt(answer)
            case Leased() if self.withdrawn:
                self.state = ENDED
                return Release(answer.retries)
            case Leased(noted, birth):
                self.state = LEADING
                if noted is not None:
                    self.retries = noted if self.retries is None else min(noted, self.retries)
                return Run(self.retries, True, birth)
            case Waiting() if self.withdrawn:
                return self._leave()
            case Waiting(left, leader, chain):
                self.state, self._chain = WAITING, chain
                if self._noted is not None:
                    return self._act_on(self._noted)
                seconds = left / 1000 + _SLACK
                return Wait(min(seconds, _DEAF) if deaf else seconds, leader)
            case Passed(envelope):
                return self._share(envelope)
            case Renewing():
                return self._leave()
            case Absent():
                return self._run_alone()
            case Oversized():
                return self._ask_past()
        raise IllegalEvent(f"answered {answer} while {ASKING}")

    def woken(self, wake: Wake) -> Step | None:
        """A wake came for this name."""
        self._expect("woken", ASKING, WAITING)
        if self.state == ASKING:
            self._noted = wake
            return None
        return self._act_on(wake)

    def lapsed(self) -> Step:
        """The wait is over, and no wake came."""
        self._expect("lapsed", WAITING)
        return self._ask_again()

    def failed(self) -> Step:
        """The server could not be asked or told, or is not to be (the breaker is open)."""
        self._expect("failed", ASKING, WAITING, TELLING)
        return self._land(not self.withdrawn) if self.state == TELLING else self._run_alone()

    def read_only(self) -> Step:
        """The server answers, but takes no writes: it is out of memory, a replica, or lacks replicas."""
        self._expect("read_only", ASKING, TELLING)
        if self.state == ASKING and self._asks == "read":
            return self._ask("peek")
        return self.failed()

    def unreadable(self) -> Step:
        """What was found cannot be read: another format, key or signature, or not the type."""
        self._expect("unreadable", FOUND)
        return self._ask_past()

    def outdated(self) -> Step:
        """What was found was invalidated by a tag, as who stored it could not know when it set out."""
        self._expect("outdated", FOUND)
        return self._ask_past(_OUTDATED)

    def ran(self, outcome: Outcome) -> Step:
        """The function ended."""
        self._expect("ran", LEADING, ALONE)
        if self.state == ALONE:
            return self._land(not self.withdrawn)
        self.state = TELLING
        return self._ending(outcome)

    def lost(self) -> bool:
        """The keeper found that the lease is no longer this claim's. Return True if that was news.

        It is not once the flight's end is being told: that frees the lease.
        """
        self._expect("lost", LEADING, ALONE, TELLING, ENDED)
        if self.state != LEADING:
            return False
        self.state, self.withdrawn = ALONE, True
        return True

    def forked(self) -> None:
        """This is a forked child's copy: the lease is its parent's, who tells the server of the end."""
        self.withdrawn = True
        if self.state == LEADING:
            self.state = ALONE

    def told_off(self) -> Release | None:
        """The local flight took too long and lost its key. The caller carries out what is returned.

        A drop of the key is no reason: that frees the lease on the server, whose answers say the rest.
        """
        self.withdrawn = True
        if self.state != LEADING:
            return None
        self.state = ALONE
        return Release(self.retries)

    def given_up(self) -> Release | None:
        """The driver itself stops (a cancellation, an interrupt): it reports nothing more.

        The release may be sent by another; after an end that was told it changes nothing. If a question is
        out, the lease may come after that, and then it lapses: nobody renews it.
        """
        state, self.state = self.state, ENDED
        return Release(self.retries) if state in (ASKING, LEADING, TELLING) else None

    # -- how it goes on

    def _expect(self, event: str, *states: State) -> None:
        if self.state not in states:
            raise IllegalEvent(f"{event} while {self.state}")

    def _act_on(self, wake: Wake) -> Step:
        if wake.kind == "again" or wake.chain != self._chain:
            return self._ask_again()
        if wake.kind == "passed":
            return self._share(wake.found.envelope)
        self.state = FOUND
        return Adopt(wake.found)

    def _share(self, envelope: bytes) -> Step:
        if not envelope:
            return self._run_alone()
        self.state = FOUND
        return Share(envelope)

    def _ask(self, mode: Mode) -> Step:
        if self.withdrawn:
            return self._leave()
        self.state, self._asks, self._noted = ASKING, mode, None
        return Ask(mode, self.seen, self._chain)

    def _ask_again(self) -> Step:
        return self._ask("force" if self._passed_over else self.mode)

    def _ask_past(self, most: int = 1) -> Step:
        """What is stored cannot be taken: ask for a lease, whatever is stored, so many times at most."""
        if self._passed_over >= most:
            return self._run_alone()
        self._passed_over += 1
        self._chain = b""
        return self._ask("force")

    def _run_alone(self) -> Step:
        if self.withdrawn:
            return self._leave()
        self.state = ALONE
        return Run(self.retries, False)

    def _ending(self, outcome: Outcome) -> Step:
        kind, envelope, fresh, life = outcome.kind, outcome.envelope, outcome.fresh, outcome.life
        if kind == "unshareable":
            return Pass(b"")
        if kind == "aborted":
            return Release(self.retries)
        instead = None
        if kind == "failed":
            if self.mode != "read":
                life = 0
            if self.retries != 0:
                instead = Release(None if self.retries is None else self.retries - 1)
        if life > 0:
            return Publish(envelope, fresh, life, instead)
        return instead or Pass(envelope)

    def _land(self, near: bool) -> Step:
        self.state = ENDED
        return Land(near)

    def _leave(self) -> Step:
        self.state = ENDED
        return Leave()
