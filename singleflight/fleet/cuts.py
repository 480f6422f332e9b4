"""Which entries the invalidation of a tag drops: it goes by numbers, and by no clock.

The invalidations of a function's tags (*cuts*) are numbered on the server, by one script: it takes a number
above the last one, keeps that as the last one, and notes it for the tag. An entry carries the last number
that its process knew *before* it asked for the lease. It is served only if none of its tags has a higher one.

Why no old value is served after a cut, whatever any clock says:

- *Cut, then claim.* What was known before the claim is the number of a cut that was made by then. So every
  cut that is made after the claim, and so every one that the function may have missed, has a higher number.
  To know too little is safe: the entry is dropped though it is good, which costs one load.
- *Claim, cut, landing.* The number was taken before the claim: what is stored is served to nobody. A flight
  that has waited takes a new number before it asks again.
- *Cut, then read.* Who reads compares with the tag's number as the bus told it, or asks for it before the
  value is served. What is near goes by the same message; a process that may have missed one drops all.
- *A reader that knows more than the loader* finds a good entry dropped. What it loads instead carries the
  number by which it was dropped, so that no two processes load in turns.
- *Put.* It carries what is known when it is sent, and asks for the last number behind itself. If that is
  higher (this process has made a cut in the same breath, or knew nothing yet) it is sent once more with that.
- *A clock that steps.* The clock is where numbers begin when the last one is lost, as on a server that comes
  back empty. While it is not lost the next one is higher, wherever the clock stands.
- *A last number that is lost or goes back* while entries stay: it was evicted, or its node of a cluster was
  restarted or failed over. The next cut is above the server's clock and all that its process has ever known.
  Who hears of a cut that is not above the last one that it heard of makes that cut again, above all that it
  knows itself. So a cut leaves an old value only if the number was lost, the clock is behind that as well,
  and no process that listens has heard of it.

A tag's own number is lost with its key, as other drops are: by an eviction, by a failover that loses writes.

An *epoch* is the number by which all entries of a function are named. Raised, it hides all of them at once.
It is given by the same rule, so that none comes again whose entries may still be there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["MOST", "Known", "Numbers", "is_cut"]

MOST: Final = 2**52
"""The highest number: the server counts exactly up to twice as far. What claims more is none of ours."""


class Numbers(NamedTuple):
    """The numbers of a function: its epoch, and its last cut. 0: there was none."""

    epoch: int = 0
    cut: int = 0

    def raised(self, other: Numbers) -> Numbers:
        """Return the higher ones of both."""
        return Numbers(max(self.epoch, other.epoch), max(self.cut, other.cut))


class Known:
    """What one process knows of the numbers of a function. Not thread-safe: change it under the link's lock.

    `now` are those that hold; None if newer ones may have been missed, so that the server is to be asked.
    `ever` are the highest that were known at any time, also on a server that has forgotten them.
    """

    __slots__ = ("_heard", "ever", "now")

    def __init__(self) -> None:
        self.now: Numbers | None = None
        self.ever: Numbers = Numbers()
        self._heard = 0  # the highest cut that the bus told of

    def learn(self, numbers: Numbers) -> None:
        """The server was asked for both, and nothing can have been missed since."""
        self.now = (self.now or Numbers()).raised(numbers)
        self.ever = self.ever.raised(numbers)

    def saw(self, numbers: Numbers, carried: int = 0) -> None:
        """The server has given these. If it is not known which ones hold it stays so.

        `carried` is the cut that an entry was stored with: the server may have lost that one.
        """
        self.ever = self.ever.raised(numbers).raised(Numbers(cut=carried))
        if self.now is not None:
            self.now = self.now.raised(numbers)

    def heard_epoch(self, epoch: int) -> bool:
        """The bus told of an epoch. Return True if it is not the one that was known.

        A lower one comes late, or the epoch was lost and has been given anew: the server is to be
        asked. Where that is so already it stays so. What was asked before must not be learnt.
        """
        before = self.now
        self.ever = self.ever.raised(Numbers(epoch))
        if before is None:
            return True
        self.now = None if epoch < before.epoch else before._replace(epoch=epoch)
        return epoch != before.epoch

    def heard_cut(self, cut: int) -> bool:
        """The bus told of a cut, of this process's too. Return True if it is to be made again.

        Messages come in order: a number that is not higher shows that the last one was lost on the server.
        """
        again = cut <= self._heard < MOST
        self._heard = max(cut, self._heard)
        self.saw(Numbers(cut=cut))
        return again

    def forget(self) -> None:
        """Messages may have been missed."""
        self.now = None


def is_cut(cuts: Iterable[int], last: int) -> bool:
    """Return True if one of these cuts, those of an entry's tags, is later than what was known of it was."""
    return any(cut > last for cut in cuts)
