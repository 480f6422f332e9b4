"""What is sent to the server and what comes back: calls of the scripts, replies, wakes and news.

Times are whole milliseconds, as durations or by the server's clock. No time of a client's clock is sent.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

from ..fleet.claims import Mode, Publish, Release
from ..fleet.cuts import MOST, Numbers
from ..fleet.replies import (
    AGAIN,
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
from . import texts
from .texts import Script

__all__ = [
    "WAKE_LIMIT",
    "Call",
    "News",
    "Place",
    "check",
    "claim",
    "claimed",
    "command",
    "cut",
    "cut_key",
    "drop",
    "epoch_key",
    "last_cut_key",
    "looked",
    "looks",
    "missing",
    "news_head",
    "news_of",
    "number",
    "numbers",
    "pass_on",
    "place",
    "publish",
    "put",
    "raise_epoch",
    "release",
    "renew",
    "told",
    "wake_of",
]

WAKE_LIMIT: Final = 32 * 1024
"""Bytes of an envelope that still travels in the wake; above, waiters are told to ask again."""


class Call(NamedTuple):
    """A script with its keys and arguments; or a plain command: no script, and `args` has the keys, too."""

    script: Script | None
    keys: Sequence[bytes]
    args: Sequence[bytes | str | int]


class Place(NamedTuple):
    """Where an entry is: the names of its two hashes."""

    values: bytes
    flights: bytes

    def waits(self, version: bytes) -> bytes:
        """Return the name under which a claim of this version waits (`fleet.mailboxes`)."""
        return self.flights + _framed_again(version)


class News(NamedTuple):
    """A message on the bus.

    kind     sent when                          key            number
    "drop"   an entry was dropped or put        the key's      the server's time, in milliseconds
    "new"    a value took another's place       the key's      the birth of that value
    "epoch"  all of a function was dropped      any            the new epoch
    "cut"    what has a tag was dropped         the tag's      that of the cut

    `function` and `key` are digests of 16 bytes, `sender` the 8 bytes of the process that sent it.
    """

    kind: str
    function: bytes
    key: bytes
    sender: bytes
    number: int


# -- names -------------------------------------------------------------------------------------------


def place(entry: str) -> Place:
    """Return where the entry of this name (`fleet.names.entry_name`) is."""
    name = entry.encode()
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"a name of {len(name)} bytes is too long")
    return Place(name + b":e", name + b":f")


def epoch_key(prefix: str, function: bytes) -> bytes:
    """Return the name of a function's epoch; `function` is the digest that stands in news."""
    return f"{prefix}:{{told}}:e:{function.hex()}".encode()


def last_cut_key(prefix: str, function: bytes) -> bytes:
    """Return the name of the number of a function's last cut. Cuts and epochs are in one slot, for MGET."""
    return f"{prefix}:{{told}}:n:{function.hex()}".encode()


def cut_key(prefix: str, tag: bytes) -> bytes:
    """Return the name of a tag's cut; `tag` is its digest."""
    return f"{prefix}:{{told}}:c:{tag.hex()}".encode()


# -- what is sent ------------------------------------------------------------------------------------


def command(name: str, *args: bytes | str | int) -> Call:
    """Return a plain command, whose keys are its first argument, or all of MGET's; its replies are raw."""
    keys = tuple(key for key in (args if name == "MGET" else args[:1]) if isinstance(key, bytes))
    return Call(None, keys, (name, *args))


def claim(
    place: Place,
    version: bytes,
    token: bytes,
    mode: Mode,
    *,
    lease: int,
    channel: bytes,
    leader: str,
    most: int,
    seen: int = 0,
    chain: bytes = b"",
) -> Call:
    """Ask for a value or the lease; `claimed` reads the reply.

    A claim that is answered `Waiting` has put this process's `channel` among the waiters. Values of more than
    `most` bytes are not read. A live lease that has the same token is lengthened.
    """
    head = _CLAIM.pack(_MODES[mode], min(most, _MOST), seen, lease)
    names = _framed(token) + _framed_again(channel) + _framed_leader(leader)
    return Call(texts.CLAIM, place, (_framed_again(version), head + _framed(chain, 0) + names))


def publish(
    place: Place,
    version: bytes,
    token: bytes,
    what: Publish,
    *,
    birth: int,
    lease: int,
    bus: bytes,
    head: bytes,
    most: int = WAKE_LIMIT,
) -> Call:
    """Store a value under the lease, end that, wake the waiters, with the value up to `most` bytes.

    `told` reads the reply. If the value replaced one that lived the bus is told, with what `news_head` made.
    """
    instead = () if what.instead is None else (_retries(what.instead),)
    times = (what.fresh, what.life, birth)
    args = (_framed(version), token, what.envelope, *times, most, bus, head, lease, *instead)
    return Call(texts.PUBLISH, place, args)


def pass_on(place: Place, version: bytes, token: bytes, envelope: bytes, *, lease: int) -> Call:
    """End the lease and give its outcome to the waiters without storing it; `told` reads the reply.

    Waiters of this chain of flights that come late are told of it for the time of a lease.
    """
    return Call(texts.PASS, place, (_framed(version), token, envelope, lease))


def release(place: Place, version: bytes, token: bytes, what: Release, *, lease: int) -> Call:
    """End the lease and have the waiters ask again; `told` reads the reply.

    If anybody waits the retries are noted, for the time of a lease.
    """
    return Call(texts.RELEASE, place, (_framed(version), token, _retries(what), lease))


def renew(place: Place, version: bytes, token: bytes, *, lease: int) -> Call:
    """Have the lease end so many milliseconds from now. The reply is 1, or -1 if it is not ours any more."""
    return Call(texts.RENEW, place, (_framed(version), token, lease))


def drop(place: Place, *, bus: bytes, head: bytes) -> Call:
    """Delete values and leases of all versions; waiters ask again, the bus is told.

    The reply is 1 if there was a value of any version, else 0.
    """
    return Call(texts.DROP, place, (bus, head))


def put(
    place: Place,
    version: bytes,
    envelope: bytes,
    *,
    fresh: int,
    life: int,
    bus: bytes,
    head: bytes,
    most: int = WAKE_LIMIT,
) -> Call:
    """Drop, then store this value; waiters of its version get it. The reply is that of `drop`."""
    args = (_framed(version), envelope, fresh, life, most, bus, head)
    return Call(texts.PUT, place, args)


def raise_epoch(key: bytes, *, known: int, life: int, bus: bytes, head: bytes) -> Call:
    """Raise a function's epoch, above the one that is known, and tell the bus. The reply is the new epoch.

    It is kept for `life` milliseconds, which must be longer than any entry of the epoch before lives.
    """
    return Call(texts.RAISE, (key,), (known, life, bus, head))


def cut(last: bytes, tag: bytes, *, known: int, life: int, bus: bytes, head: bytes) -> Call:
    """Number a cut of a tag, above all that are known (`fleet.cuts`), and tell the bus. The reply is that.

    `last` and `tag` are the keys of the function's last cut and of the tag's. They are kept for `life`
    milliseconds, longer than any entry lives.
    """
    return Call(texts.CUT, (last, tag), (known, life, bus, head))


def check(prefix: str, channels: Sequence[bytes]) -> Call:
    """Ask what the user may not do with names of this prefix and with these channels; `missing` reads it."""
    return Call(texts.CHECK, (place(f"{prefix}:{{check}}").values,), channels)


def looks(place: Place, version: bytes) -> list[Call]:
    """Ask what there is, without taking part; `looked` reads the replies."""
    framed = _framed(version)
    return [
        command("HMGET", place.values, b"l" + framed),
        command("HMGET", place.flights, b"u" + framed, b"n" + framed),
        command("TIME"),
    ]


def looked(replies: Sequence[Any]) -> tuple[int, int, str]:
    """Return how long a value is stored and a lease lasts (0 or less: not at all), and whose lease it is."""
    [stored], [led, leader], (seconds, microseconds) = replies
    now = int(seconds) * 1000 + int(microseconds) // 1000
    return int(stored or now) - now, int(led or now) - now, (leader or b"").decode(errors="replace")


def news_head(function: bytes, key: bytes, sender: bytes) -> bytes:
    """Return what a message on the bus says of its subject: digests of 16 bytes each, a sender of 8."""
    head = function + key + sender
    if len(head) != _HEAD:
        raise ValueError(f"expected 16, 16 and 8 bytes, got {len(function)}, {len(key)} and {len(sender)}")
    return head


# -- what comes back ---------------------------------------------------------------------------------


def claimed(reply: Any) -> Answer:
    """Return what the server answered to a claim. Raises `ValueError` if it is no such answer."""
    try:
        return _CLAIMED[reply[:1]](reply)
    except (KeyError, TypeError, struct.error):
        raise ValueError("not the answer to a claim") from None


def _found(reply: bytes) -> Found:
    return Found(reply[25:], *_TIMES.unpack_from(reply, 1))


def _leased(reply: bytes) -> Leased:
    retries, birth = _LEASED.unpack_from(reply, 1)
    return Leased(None if retries < 0 else retries, birth)


def _led(reply: bytes) -> Waiting | Renewing:
    (left,) = struct.unpack_from(">Q", reply, 1)
    leader, rest = _unframed(reply[9:])
    name = (leader or b"").decode(errors="replace")
    return Waiting(left, name, _unframed(rest)[0] or b"") if reply[:1] == b"w" else Renewing(left, name)


def number(reply: Any) -> int:
    """Return the number that a plain key holds; 0 where it holds nothing, or what is no such number."""
    held = int(reply) if isinstance(reply, bytes) and reply.isdigit() and len(reply) <= 16 else 0
    return held if held <= MOST else 0


def numbers(reply: Any) -> Numbers:
    """Return those of a function, from the reply to MGET of its epoch and its last cut."""
    return Numbers(*map(number, reply))


def told(reply: Any) -> Told | Refused:
    """Return what the server answered to the end of a flight."""
    return Refused() if reply < 0 else Told(reply)


def wake_of(message: bytes) -> tuple[bytes, Wake] | None:
    """Return who is woken by a message on the process's own channel, and how; None if it is none of ours."""
    flights, rest = _unframed(message[1:])
    version, rest = _unframed(rest)
    chain, payload = _unframed(rest)
    if not flights or not version or chain is None or payload is None:
        return None
    wake = _wake(message[:1], chain, payload)
    return None if wake is None else (flights + _framed(version), wake)


def _wake(kind: bytes, chain: bytes, payload: bytes) -> Wake | None:
    if kind == b"v" and len(payload) >= _TIMES.size:
        return Wake("value", Found(payload[_TIMES.size :], *_TIMES.unpack_from(payload)), chain)
    if kind == b"p":
        return Wake("passed", Found(payload, 0, 0, 0), chain)
    return AGAIN if kind == b"a" and not payload else None


def news_of(message: bytes) -> News | None:
    """Return a message on the bus; None if it is none of ours."""
    kind, head, number = _NEWS.get(message[:1]), message[1 : 1 + _HEAD], message[1 + _HEAD :]
    if kind is None or not number.isdigit() or len(number) > 16:
        return None
    return News(kind, head[:16], head[16:32], head[32:], int(number))


def missing(reply: Sequence[bytes], prefix: str) -> list[str]:
    """Return the rights that are missing, each as an ACL rule would grant it; empty if there are none."""
    return [
        f"+{name}{_GRANTS.get(name, ' ~{}:*').format(prefix)}"
        for name in dict.fromkeys(map(bytes.decode, reply))
    ]


_CLAIMED: Final[dict[bytes, Callable[[bytes], Answer]]] = {
    b"v": _found,
    b"l": _leased,
    b"w": _led,
    b"n": _led,
    b"o": lambda reply: Oversized(*struct.unpack_from(">Q", reply, 1)),
    b"p": lambda reply: Passed(reply[1:]),
    b"a": lambda _: Absent(),
}
_MODES: Final = {"read": b"r", "renew": b"n", "force": b"f", "peek": b"k"}
_MOST: Final = 2**32 - 1
_CLAIM: Final = Struct(">cIQI")  # mode, most, seen, lease
_LEASED: Final = Struct(">qQ")  # retries, birth
_HEAD: Final = 40
_LONGEST_NAME: Final = 250  # so that a name's length fits into a byte
_TIMES: Final = Struct(">QQQ")  # left, fresh, birth
_NEWS: Final = {b"d": "drop", b"n": "new", b"e": "epoch", b"c": "cut"}
_GRANTS: Final = {"publish": " &{}:*", "subscribe": " &{}:*", "time": "", "ping": ""}


def _framed(name: bytes, least: int = 1) -> bytes:
    """Return it with its length before it, so that none begins like another."""
    if not least <= len(name) < 256:
        raise ValueError(f"expected a name of {least} to 255 bytes, got {len(name)}")
    return bytes((len(name),)) + name


_framed_again = lru_cache(maxsize=1000)(_framed)  # of what is sent with each claim


@lru_cache(maxsize=1000)
def _framed_leader(leader: str) -> bytes:
    return _framed(leader.encode()[:255], 0)


def _retries(what: Release) -> int:
    return -1 if what.retries is None else what.retries


def _unframed(data: bytes | None) -> tuple[bytes | None, bytes | None]:
    """Return what stands behind its length, and the rest; None if it is cut short."""
    if not data or data[0] >= len(data):
        return None, None
    end = 1 + data[0]
    return data[1:end], data[end:]
