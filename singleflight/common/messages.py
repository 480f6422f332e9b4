"""How keys, arguments and errors are written into messages: guarded, and never longer than a line or two.

A message is made while something has gone wrong. It must not fail itself because a key's `__repr__` raises
(a row whose session is closed), and it must not hold a million numbers because a key does.
"""

from __future__ import annotations

from collections.abc import Iterable
from reprlib import Repr

from .keys import plain

__all__ = ["LONGEST", "Shown", "cut", "kind_of", "listed", "shown", "visible"]

LONGEST = 200  # characters of one key or argument
_MOST = 12  # keys in one list


class _Bounded(Repr):
    """`reprlib`'s way with containers, with wider limits and a guard around each element's `__repr__`."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 6
        self.maxtuple = self.maxlist = self.maxarray = self.maxdict = 50
        self.maxset = self.maxfrozenset = self.maxdeque = 50
        self.maxstring = self.maxlong = self.maxother = LONGEST

    def repr_instance(self, x: object, level: int) -> str:  # noqa: ARG002
        """Any object that is no built-in container, string or number."""
        try:
            return cut(repr(x))
        except Exception as error:
            return f"<{type(x).__name__}, whose repr raised {type(error).__name__}>"


_bounded = _Bounded()


def shown(value: object) -> str:
    """A key, argument or error as text of at most 200 characters; raises no Exception.

    >>> shown(("acct-1", "ASML"))
    "('acct-1', 'ASML')"
    >>> len(shown(list(range(1_000_000)))) <= 200
    True
    """
    try:
        return cut(_bounded.repr(plain(value)))
    except Exception as error:
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"


def kind_of(value: object) -> str:
    """The type of a value with its article.

    >>> kind_of(1), kind_of("a")
    ('an int', 'a str')
    """
    name = "None" if value is None else type(value).__qualname__
    article = "" if value is None else "an " if name[:1].lower() in "aeio" else "a "
    return article + name


class Shown:
    """The `repr` of a dataclass that holds what users handed in: as usual, but bounded and guarded."""

    __slots__ = ()

    def __repr__(self) -> str:
        from dataclasses import fields

        names = [field.name for field in fields(self) if field.repr]  # type: ignore[arg-type]
        told = ", ".join(f"{name}={shown(getattr(self, name))}" for name in names)
        return f"{type(self).__qualname__}({told})"


def listed(values: Iterable[object], between: str = ", ") -> str:
    """Several of them, the ones in the middle left out where there are many."""
    texts = [shown(value) for value in values]
    if len(texts) > _MOST:
        half = _MOST // 2
        texts = [*texts[:half], f"... ({len(texts) - 2 * half} more) ...", *texts[-half:]]
    return between.join(texts)


def visible(text: str) -> str:
    r"""A text for one line of a terminal or page: what cannot be printed is written as its escape.

    So a name neither moves the cursor nor changes colours, and half a surrogate pair can be encoded.

    >>> visible("a\x1b[31m\nb"), visible("Börse \ud83d"), visible("Börse")
    ('a\\x1b[31m\\nb', 'Börse \\ud83d', 'Börse')
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def cut(text: str) -> str:
    """A text of at most 200 characters, its middle left out."""
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
