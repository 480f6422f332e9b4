"""What a bulk call asks for, before anything is decided."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from .boarding import Boarding
from .bulk import BulkCall
from .errors import UnhashableKey
from .memo import Memo
from .messages import shown

__all__ = ["Request"]


class Request:
    """What a bulk call asks for, and how.

    Args:
        items: as they were passed.
        name: what errors call them.
        key_of: the key of an item.
        run: calls the loader with a list of items.
        max_batch: how many items the loader takes at once; None for all.
    """

    __slots__ = ("_key_of", "_max_batch", "_name", "items", "memo", "run")

    def __init__(
        self,
        memo: Memo,
        items: Any,
        name: str,
        key_of: Callable[[Any], Hashable],
        run: Callable[[Any], Any],
        max_batch: int | None,
    ) -> None:
        self.memo, self.items, self.run = memo, items, run
        self._name, self._key_of, self._max_batch = name, key_of, max_batch

    def bulk_call(self, make: Callable[[Hashable], Boarding]) -> BulkCall:
        """The call, with all its keys; raises what is wrong with the items, and nothing has changed."""
        keyed = []
        self.items = self._listed()
        for place, item in enumerate(self.items):
            try:
                hash(item)
            except TypeError:
                kind = type(item).__name__
                raise UnhashableKey(
                    f"{self.memo.name}: argument '{self._name}[{place}]' cannot be hashed ({kind}), so it "
                    f"cannot have a place in the answer"
                ) from None
            keyed.append((item, self._key_of(item)))
        return BulkCall(self.memo, keyed, self._key_of, make, self._max_batch)

    def chunks(self) -> list[list[Any]] | None:
        """For a direct call: the items in parts that the loader can take; None for all, as they are."""
        size = self._max_batch
        if size is None:
            return None
        items = self._listed()
        return [items[start : start + size] for start in range(0, len(items), size)]

    def _listed(self) -> list[Any]:
        """The items, read once; a string is no collection of them."""
        items = self.items
        if isinstance(items, (str, bytes, bytearray)) or not isinstance(items, Iterable):
            raise TypeError(f"{self._name}: expected an iterable of items, got {shown(items)}")
        return list(items)
