"""The server as the scripts make it, in dictionaries, with a clock that is moved by hand.

Times are whole milliseconds. `contract_of_server` says what holds for this and for a real one alike.
"""

from copy import copy
from dataclasses import dataclass, field

from singleflight.fleet.cuts import Numbers
from singleflight.fleet.replies import (
    AGAIN,
    Absent,
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

WAKE_LIMIT = 32 * 1024
LEASE = 5_000
NOBODY = (None, 0, "", None)
NOTHING = (None, 0, None)
NO_CHAIN = (None, 0, b"")


@dataclass
class Entry:
    """The two hashes of one entry, by version."""

    values: dict = field(default_factory=dict)  # version: (envelope, fresh until, lives until, birth)
    leases: dict = field(default_factory=dict)  # version: (token, until, leader, chain)
    retries: dict = field(default_factory=dict)  # version: (noted, until, chain)
    ended: dict = field(default_factory=dict)  # version: (chain, until, what was passed or None)
    waiters: dict = field(default_factory=dict)  # version: channels


class ModelServer:
    """Answers as the scripts do. Each method is one script, and so not divided by anything."""

    def __init__(self):
        self.now = 1
        self.entries = {}
        self.epoch = 0
        self.last_cut = 0
        self.cuts = {}  # by tag
        self.channels = {}  # name: what was published since it was last heard
        self.subscribed = set()

    # -- what is asked by the tests alone

    def passes(self, milliseconds):
        self.now += milliseconds

    def subscribe(self, channel):
        self.subscribed.add(channel)
        self.channels.setdefault(channel, [])

    def hear(self, channel):
        """Return what came since the last time: (key, version, wake), or what `scripts.News` says."""
        heard = self.channels.get(channel, [])
        self.channels[channel] = []
        return heard

    def unlimited(self):
        """Return the keys without an expiry: there are none in dictionaries."""
        return []

    def copied(self):
        twin = copy(self)
        twin.entries = {
            key: Entry(
                dict(entry.values),
                dict(entry.leases),
                dict(entry.retries),
                dict(entry.ended),
                {version: list(channels) for version, channels in entry.waiters.items()},
            )
            for key, entry in self.entries.items()
        }
        twin.cuts, twin.subscribed = dict(self.cuts), set(self.subscribed)
        twin.channels = {name: list(heard) for name, heard in self.channels.items()}
        return twin

    def snapshot(self):
        """Return all that can be seen of it, to be compared and hashed."""
        entries = [
            (
                key,
                *(
                    tuple(sorted(part.items()))
                    for part in (entry.values, entry.leases, entry.retries, entry.ended)
                ),
                tuple(sorted((version, tuple(sorted(who))) for version, who in entry.waiters.items() if who)),
            )
            for key, entry in sorted(self.entries.items())
            if entry != Entry()
        ]
        heard = [(name, tuple(messages)) for name, messages in sorted(self.channels.items()) if messages]
        told = (self.epoch, self.last_cut, tuple(sorted(self.cuts.items())))
        return (self.now, tuple(entries), told, tuple(heard), tuple(sorted(self.subscribed)))

    # -- the scripts

    def claim(
        self, key, version, token, *, lease, channel, leader="", most=1 << 20, mode="read", seen=0, chain=b""
    ):
        entry = self._entry(key)
        last, until, passed = entry.ended.get(version, NO_CHAIN)
        awaited = chain != b"" and chain == last and until > self.now
        if awaited and passed is not None:
            return Passed(passed)
        if mode != "force" or awaited:
            found = self._found(entry, version)
            if found is not None and (mode != "renew" or (found.fresh > 0 and found.birth > seen)):
                return Oversized(len(found.envelope)) if len(found.envelope) > most else found
        holder, until, name, going = entry.leases.get(version, NOBODY)
        if until > self.now and holder != token:
            if mode == "renew":
                return Renewing(until - self.now, name)
            if channel not in entry.waiters.setdefault(version, []):
                entry.waiters[version].append(channel)
            return Waiting(until - self.now, name, going)
        noted, until, retried = entry.retries.get(version, NOTHING)
        if until <= self.now:
            noted = retried = None
        entry.leases[version] = (token, self.now + lease, leader, retried or going or token)
        return Leased(noted, self.now)

    def peek(self, key, version, *, most=1 << 20):
        found = self._found(self._entry(key), version)
        if found is None:
            return Absent()
        return Oversized(len(found.envelope)) if len(found.envelope) > most else found

    def publish(
        self,
        key,
        version,
        token,
        envelope,
        *,
        fresh,
        life,
        birth,
        most=WAKE_LIMIT,
        yields=False,
        retries=None,
        lease=LEASE,
    ):
        """`yields`: if anybody waits, release with so many retries instead."""
        if not self._is_leader(key, version, token):
            return Refused()
        entry = self._entry(key)
        if yields and entry.waiters.get(version):
            return self.release(key, version, token, retries=retries, lease=lease)
        replaced = self._found(entry, version) is not None
        entry.values[version] = (envelope, self.now + fresh, self.now + life, birth)
        chain, waiters = self._end(entry, version, None, lease)
        told = self._wake(key, version, waiters, self._wake_of(entry, version, most, chain))
        if replaced:
            self._tell("bus", ("new", key))
        return told

    def pass_on(self, key, version, token, envelope, *, lease=LEASE):
        if not self._is_leader(key, version, token):
            return Refused()
        chain, waiters = self._end(self._entry(key), version, envelope, lease)
        return self._wake(key, version, waiters, Wake("passed", Found(envelope, 0, 0, 0), chain))

    def release(self, key, version, token, *, retries, lease):
        if not self._is_leader(key, version, token):
            return Refused()
        entry = self._entry(key)
        chain = entry.leases[version][3]
        waiters = self._free(entry, version)
        if waiters:
            entry.retries[version] = (retries, self.now + lease, chain)
        return self._wake(key, version, waiters, AGAIN)

    def renew(self, key, version, token, *, lease):
        if not self._is_leader(key, version, token):
            return False
        entry = self._entry(key)
        entry.leases[version] = (token, self.now + lease, *entry.leases[version][2:])
        return True

    def drop(self, key):
        for version, waiters in self._emptied(key).items():
            self._wake(key, version, waiters, AGAIN)
        self._tell("bus", ("drop", key))

    def put(self, key, version, envelope, *, fresh, life, most=WAKE_LIMIT):
        chains = {other: lease[3] for other, lease in self._entry(key).leases.items()}
        waiting = self._emptied(key)
        entry = self._entry(key)
        entry.values[version] = (envelope, self.now + fresh, self.now + life, self.now)
        for other, waiters in waiting.items():
            wake = self._wake_of(entry, version, most, chains[version]) if other == version else AGAIN
            self._wake(key, other, waiters, wake)
        self._tell("bus", ("drop", key))

    def raise_epoch(self, known=0):
        self.epoch = self._following(self.epoch, known)
        self._tell("bus", ("epoch", "function", self.epoch))
        return self.epoch

    def cut(self, tag, known=0):
        self.last_cut = self.cuts[tag] = self._following(self.last_cut, known)
        self._tell("bus", ("cut", tag, self.last_cut))
        return self.last_cut

    def numbers(self):
        return Numbers(self.epoch, self.last_cut)

    def cut_of(self, tag):
        return self.cuts.get(tag, 0)

    def loses_numbers(self):
        """They were evicted, and what they have dropped was not."""
        self.epoch = self.last_cut = 0

    # -- their parts

    def _following(self, last, known):
        return max(self.now, max(last, known) + 1)

    def _entry(self, key):
        return self.entries.setdefault(key, Entry())

    def _found(self, entry, version):
        envelope, fresh, life, birth = entry.values.get(version, (b"", 0, 0, 0))
        if life <= self.now:
            return None
        return Found(envelope, life - self.now, max(0, fresh - self.now), birth)

    def _wake_of(self, entry, version, most, chain):
        found = self._found(entry, version)
        if found is None:
            return AGAIN
        return AGAIN if len(found.envelope) > most else Wake("value", found, chain)

    def _is_leader(self, key, version, token):
        holder, until, *_ = self._entry(key).leases.get(version, NOBODY)
        return holder == token and until > self.now

    def _end(self, entry, version, passed, lease):
        """The chain is over: those who waited for any of it may still ask how it ended."""
        chain = entry.leases[version][3]
        retried = version in entry.retries
        waiters = self._free(entry, version)
        if waiters or retried:
            entry.ended[version] = (chain, self.now + lease, passed)
        return chain, waiters

    def _free(self, entry, version):
        entry.leases.pop(version, None)
        entry.retries.pop(version, None)
        return entry.waiters.pop(version, [])

    def _emptied(self, key):
        waiting = self._entry(key).waiters
        del self.entries[key]
        return waiting

    def _wake(self, key, version, channels, wake):
        for channel in channels:
            self._tell(channel, (key, version, wake))
        return Told(len(channels))

    def _tell(self, channel, message):
        if channel in self.subscribed:
            self.channels[channel].append(message)
