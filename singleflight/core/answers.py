"""How one call was served, as its caller sees it (`.answer`)."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from math import floor, inf
from typing import Generic, TypeVar

from ..common.messages import Shown, shown

__all__ = ["Answer"]

R = TypeVar("R")

_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")  # RFC 8941: an sf-token


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Shown, Generic[R]):
    """The value of one call, and how that very call was served, as `fn.answer(...)` returns it.

    `served` is "hit", "stale_hit", "wait" (by another caller's flight), "fetch" (by a flight of its own) or
    "bypass" (its function was run directly). `age` is in seconds, since the value landed. `fresh_for` is for
    how many more seconds it is fresh (`math.inf`: for ever), and `stale_for` for how many after that, or from
    now on if it is not fresh, it may be served stale. These three are 0.0 for a value that was not stored.
    """

    value: R
    served: str
    key: Hashable
    age: float
    fresh_for: float
    stale_for: float
    stored: bool = False
    """The value is an entry, or was stored when it landed."""
    replaced: bool = False
    """There had been a value before, which had run out."""
    overdue: float = 0.0
    """For how many seconds the value has been stale."""

    def cache_status(self, name: str, *, key: bool = False) -> str:
        """Return a member of the HTTP response header `Cache-Status` (RFC 9211).

        Args:
            name: names this cache; written as a token if it is one, else as a string.
            key: True adds the key as text (default False: keys often have what clients are not to see).

        `ttl` is in whole seconds, negative for a stale value, and left out for one that never runs out or
        was not stored. Raises `TypeError` for a name that is no string. Caches append their members to the
        header, the one nearest to the client last.

        >>> Answer(984.75, "hit", "ASML", 3.2, 56.8, 0.0, stored=True).cache_status("prices")
        'prices; hit; ttl=56'
        >>> Answer(984.75, "wait", "ASML", 0.0, 60.0, 0.0, stored=True).cache_status("my prices", key=True)
        '"my prices"; fwd=miss; stored; collapsed; ttl=60; key="\\'ASML\\'"'
        """
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {shown(name)}")
        parts = [name if _TOKEN.fullmatch(name) else _quoted(name)]
        if self.served in ("hit", "stale_hit"):
            parts.append("hit")
        elif self.served == "bypass":
            parts.append("fwd=bypass")
        else:
            parts.append("fwd=stale" if self.replaced else "fwd=miss")
            parts += ["stored"] * self.stored + ["collapsed"] * (self.served == "wait")
        left = self.fresh_for or -self.overdue
        if self.stored and left != inf:
            parts.append(f"ttl={floor(left)}")
        if key:
            parts.append(f"key={_quoted(shown(self.key))}")
        return "; ".join(parts)


def _quoted(text: str) -> str:
    """Return an sf-string: printable ASCII between quotes; all else as Python would escape it."""
    visible = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)
    return '"' + visible.replace("\\", "\\\\").replace('"', '\\"') + '"'
