"""What is stored on the server, and travels to those who wait: the bytes around a value.

An envelope is, in this order, numbers big-endian:

    format      1 byte    0xF1 is this layout
    flags       1 byte    value 0, None 1, failure 2; + 4 not to be stored (`cache_if`); + 8 signed
    version     8 bytes   the fingerprint of what the payload is (`fingerprints`)
    last cut    8 bytes   of its function, as known before its flight asked for the lease (`cuts`)
    ttl         8 bytes   milliseconds from its landing; all ones: for ever
    grace       8 bytes   milliseconds more
    refresh     8 bytes   milliseconds from its landing to the next read that renews; all ones: never
    lengths    12 bytes   of key, tags and payload, 4 each
    key                   the key's bytes, which are compared
    tags                  each a length of 2 bytes and UTF-8
    payload               what the serializer made
    signature  32 bytes   only with `signing_key`: HMAC-SHA256 of the name there and all of the above

Whoever may write on the server may store what is there already under its own name again: a signature does
not tell how old an envelope is. All other ways to make one are `Unreadable`, as is whatever else is found.
"""

from __future__ import annotations

import hmac
from math import inf
from struct import Struct
from typing import Literal, NamedTuple, get_args

from ..common.messages import kind_of
from .cuts import MOST
from .refusals import OversizedValue, Unreadable

__all__ = ["Envelope", "Envelopes", "Kind", "checked_signing_key"]

Kind = Literal["value", "none", "failure"]

_FORMAT = 0xF1
_HEAD = Struct(">BB8sQQQQIII")
_KINDS: tuple[Kind, ...] = get_args(Kind)
_REFUSED, _SIGNED = 4, 8
_SIGNATURE = 32
_NEVER = 2**64 - 1
_CENTURY = 100 * 365 * 86_400_000  # milliseconds: what ends does so on the server too


class Envelope(NamedTuple):
    """A value, or a failure, as it travels.

    Args:
        kind: "value", "none" (the value is None; `payload` is empty) or "failure".
        payload: what the serializer made of the value, or what is told of the exception.
        last_cut: the number of its function's last cut, as known before its flight asked for the lease. It is
            not served where one of its tags has a later one (`fleet.cuts`).
        ttl: for how many seconds from its landing it is fresh; `inf` for ever.
        grace: for how many seconds more it may be served.
        refresh_after: how many seconds after its landing a read starts a renewal; `inf` never.
        refused: it is for those who wait, and is not to be stored.
        tags: what it may be dropped by.
    """

    kind: Kind
    payload: bytes = b""
    last_cut: int = 0
    ttl: float = 0.0
    grace: float = 0.0
    refresh_after: float = inf
    refused: bool = False
    tags: tuple[str, ...] = ()


class Envelopes:
    """Packs and opens the envelopes of one function; no state, so safe to use from any thread.

    Args:
        fingerprint: 8 bytes: what its payloads are.
        max_value: how many bytes a whole envelope may have, sent or received.
        signing_key: signs what is sent; then nothing is read that it did not sign.
    """

    __slots__ = ("_fingerprint", "_max_value", "_signing_key")

    def __init__(self, fingerprint: bytes, max_value: int, signing_key: bytes | None = None) -> None:
        self._fingerprint, self._max_value, self._signing_key = fingerprint, max_value, signing_key

    def pack(self, name: str, key: bytes, envelope: Envelope) -> bytes:
        """Return the bytes to store under `name`, or raise `OversizedValue`."""
        tags = b"".join(_tag(tag) for tag in envelope.tags)
        signed = self._signing_key is not None
        flags = _KINDS.index(envelope.kind) | envelope.refused * _REFUSED | signed * _SIGNED
        times = _milliseconds(envelope.ttl), _ending(envelope.grace), _milliseconds(envelope.refresh_after)
        lengths = (len(key), len(tags), len(envelope.payload))
        whole = _HEAD.size + sum(lengths) + signed * _SIGNATURE
        if whole > self._max_value:
            raise OversizedValue(f"{whole} bytes are more than max_value={self._max_value} allows to share")
        head = _HEAD.pack(_FORMAT, flags, self._fingerprint, envelope.last_cut, *times, *lengths)
        data = b"".join((head, key, tags, envelope.payload))
        return data + self._signature(name, data) if signed else data

    def open(self, name: str, key: bytes, data: bytes) -> Envelope:
        """Return the envelope that was packed for this name and key, or raise `Unreadable`, and nothing else.

        The payload is as good as its signature: without one it may be anything.
        """
        if len(data) > self._max_value:
            raise Unreadable("too large")
        if not data:
            raise Unreadable("truncated")
        if data[0] != _FORMAT:
            raise Unreadable("format")
        if len(data) < _HEAD.size:
            raise Unreadable("truncated")
        head = _HEAD.unpack_from(data)
        _, flags, version, last_cut, ttl, grace, refresh_after, of_key, of_tags, of_payload = head
        if flags & ~15 or flags & 3 == 3 or last_cut > MOST:
            raise Unreadable("format")
        key_end = _HEAD.size + of_key
        tags_end = key_end + of_tags
        end = tags_end + of_payload
        signed = flags & _SIGNED
        missing = end + (_SIGNATURE if signed else 0) - len(data)
        if missing:
            raise Unreadable("truncated" if missing > 0 else "format")
        if signed or self._signing_key is not None:
            self._check_signature(name, data, end, bool(signed))
        if version != self._fingerprint:
            raise Unreadable("version")
        if data[_HEAD.size : key_end] != key:
            raise Unreadable("key")
        kind = _KINDS[flags & 3]
        if kind == "none" and of_payload:
            raise Unreadable("format")
        return Envelope(
            kind,
            data[tags_end:end],
            last_cut,
            _seconds(ttl),
            _seconds(grace),
            _seconds(refresh_after),
            bool(flags & _REFUSED),
            _tags(data[key_end:tags_end]) if of_tags else (),
        )

    def _check_signature(self, name: str, data: bytes, end: int, signed: bool) -> None:
        """Raise `Unreadable` if it is not signed as it should be: some processes have a key, others none."""
        if signed != (self._signing_key is not None):
            raise Unreadable("signature")
        if signed and not hmac.compare_digest(self._signature(name, data[:end]), data[end:]):
            raise Unreadable("signature")

    def _signature(self, name: str, data: bytes) -> bytes:
        assert self._signing_key is not None
        whole = name.encode("utf-8", "surrogatepass")
        made = hmac.new(self._signing_key, b"%d:%b" % (len(whole), whole), "sha256")
        made.update(data)
        return made.digest()


def checked_signing_key(signing_key: object) -> bytes | None:
    """Return the option `signing_key`, or raise `TypeError` or `ValueError`, which do not show it."""
    if signing_key is None:
        return None
    if not isinstance(signing_key, bytes):
        raise TypeError(f"signing_key: expected bytes, got {kind_of(signing_key)}")
    if len(signing_key) < 16:
        raise ValueError(f"signing_key: expected at least 16 random bytes, got {len(signing_key)}")
    return signing_key


def _milliseconds(seconds: float) -> int:
    return _NEVER if seconds == inf else _ending(seconds)


def _ending(seconds: float) -> int:
    return _CENTURY if seconds == inf else min(round(seconds * 1000), _CENTURY)


def _seconds(milliseconds: int) -> float:
    return inf if milliseconds == _NEVER else milliseconds / 1000


def _tag(tag: str) -> bytes:
    data = tag.encode("utf-8", "surrogatepass")
    if len(data) > 0xFFFF:
        raise OversizedValue("a tag may have 65535 bytes")
    return len(data).to_bytes(2, "big") + data


def _tags(data: bytes) -> tuple[str, ...]:
    tags: list[str] = []
    end = 0
    try:
        while end < len(data):
            start = end + 2
            end = start + int.from_bytes(data[end:start], "big")
            tags.append(data[start:end].decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        raise Unreadable("format") from None
    if end != len(data):
        raise Unreadable("format")
    return tuple(tags)
