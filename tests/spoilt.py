"""Keys that are spoilt after they were handed over: they change, or raise when hashed or compared."""

from __future__ import annotations

from typing import Any


class SpoiltError(Exception):
    """What a spoilt key raises."""


class Key:
    """A key like those of users: equal by what it holds, until somebody spoils it."""

    def __init__(self, name: str) -> None:
        self.name = self.first = name
        self.spoilt = ""

    def __hash__(self) -> int:
        if "hash!" in self.spoilt:
            raise SpoiltError("hash")
        return hash(self.first if "same hash" in self.spoilt else self.name)

    def __eq__(self, other: object) -> bool:
        if "compare" in self.spoilt:
            raise SpoiltError("compare")
        return isinstance(other, Key) and other.name == self.name

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


def change(key: Key) -> None:
    """Equal to nothing that was asked for before."""
    key.name += "'"


def become_another(key: Key) -> None:
    """Equal to a key that others ask for."""
    key.name = "another"


def keep_the_hash(key: Key) -> None:
    """Changed in a field that is compared and not hashed."""
    key.spoilt = "same hash"
    key.name += "'"


def raise_when_hashed(key: Key) -> None:
    key.spoilt = "hash!"


def raise_when_compared(key: Key) -> None:
    key.spoilt = "compare"


def raise_always(key: Key) -> None:
    key.spoilt = "hash! compare"


SPOIL: dict[str, Any] = {
    "changes": change,
    "becomes another": become_another,
    "changes and keeps its hash": keep_the_hash,
    "raises when hashed": raise_when_hashed,
    "raises when compared": raise_when_compared,
    "raises always": raise_always,
}


class Frail:
    """A key that raises at the n-th of its hashes and comparisons, once or from then on."""

    def __init__(self, name: str, at: int = 0, for_good: bool = False) -> None:
        self.name, self.left, self.for_good = name, at, for_good

    def _step(self) -> None:
        if self.left > 0:
            self.left -= 1
            if not self.left:
                self.left = -1 if self.for_good else 0
                raise SpoiltError(self.name)
        elif self.left < 0:
            raise SpoiltError(self.name)

    def __hash__(self) -> int:
        self._step()
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        self._step()
        return isinstance(other, Frail) and other.name == self.name
