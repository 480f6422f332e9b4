"""What a key is called on the server: `prefix:{function:digest}`, in which no text of a user's can do harm.

The braces are a hash tag of Redis Cluster: all that belongs to one entry, which only differs behind them, is
on one node. The prefix is checked, the function's name is spelt in letters that mean nothing to a pattern or
a hash tag, and of the key there are 128 bits of BLAKE2.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

from ..common.messages import shown

__all__ = ["checked_prefix", "digest", "entry_name", "function_part", "hash_of", "name_of_digest"]

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def checked_prefix(prefix: object) -> str:
    """Return the prefix, or raise `TypeError` or `ValueError` naming the option."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a string, got {shown(prefix)}")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix: expected 1 to 64 of the letters A-Z a-z 0-9 _ . : -, got {shown(prefix)}")
    return prefix


@lru_cache(1024)
def function_part(name: str) -> str:
    """Return what stands for a function in names: its own name, or as much as is harmless and 64 bits of it.

    >>> function_part("shop.price"), function_part("shop.price.<locals>.{evil*}")
    ('shop.price', 'shop.price._locals_._evil_+81e8b181b9fc0971')
    """
    if _PLAIN.fullmatch(name):
        return name
    return f"{_UNSAFE.sub('_', name)[:40]}+{_blake2(_encoded(name), 8).hex()}"


def digest(name: str, key: bytes, epoch: int = 0) -> bytes:
    """Return the 16 bytes by which a function's key is known; another `epoch` is another name for all keys.

    Args:
        name: the function's name in the fleet.
        key: what `key_bytes` made of the key.
        epoch: how often all entries of the function were dropped at once.
    """
    made = hash_of(name, epoch)
    made.update(key)
    return made.digest()


def hash_of(name: str, epoch: int = 0) -> blake2b:
    """Return the digest of a function without a key: a copy of it that is updated with one is that key's."""
    whole = _encoded(name)
    return blake2b(b"%d:%d:%b" % (epoch, len(whole), whole), digest_size=16, person=b"singleflight")


def entry_name(prefix: str, name: str, key: bytes, epoch: int = 0) -> str:
    """Return the name on the server to which an entry's parts add what they are.

    >>> from singleflight.fleet.keybytes import key_bytes
    >>> entry_name("sf", "shop.price", key_bytes(("acct-1", "ASML")))
    'sf:{shop.price:...}'
    """
    return name_of_digest(prefix, name, digest(name, key, epoch))


def name_of_digest(prefix: str, name: str, place: bytes) -> str:
    """Return the same, for a key whose digest is known."""
    return f"{prefix}:{{{function_part(name)}:{place.hex()}}}"


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _blake2(data: bytes, size: int) -> bytes:
    return blake2b(data, digest_size=size, person=b"singleflight").digest()
