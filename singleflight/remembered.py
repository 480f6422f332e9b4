"""What one decorated function remembers, and whether its calls are to be decided at all."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from .counts import Counts
from .flights import Flight
from .locks import KeyedLocks
from .options import Options, switched_off
from .store import Store
from .telling import Teller
from .turns import inside

__all__ = ["Remembered"]


class Remembered:
    """Everything one decorated function remembers and decides."""

    def __init__(
        self,
        name: str,
        run: Callable[..., Any],
        options: Options,
        counts: Counts,
        own_key: Callable[..., Hashable] | None = None,
    ) -> None:
        self.name = name
        self.run = run
        self.own_key = own_key
        self.options = options
        self.counts = counts
        self.timer = options.timer
        self.store = Store(options.maxsize, options.fixed_ttl)
        self.locks = KeyedLocks(options.max_idle_locks)
        self.tell = Teller(name, options.listener)
        self.bypassed = 0  # how many `bypass()` blocks are open; written with `shut` and `reopen`
        self.fast_paths: list[dict[str, Any]] = []  # the namespaces in which compiled calls find `lookup`
        self.adrift: set[Flight] = set()  # detached and still flying; guarded by the mutex

    def shut(self) -> None:
        """Send every call the longer way."""
        for namespace in self.fast_paths:
            namespace["_sf_lookup"] = {}.get

    def reopen(self) -> None:
        """Let hits take the fast path again, unless the environment switches everything off."""
        if switched_off():
            return
        for namespace in self.fast_paths:
            namespace["_sf_lookup"] = self.store.index.get

    def after_fork(self) -> None:
        """In a forked child: the inherited values, no flights, counts from zero."""
        for flight in self.adrift:
            flight.orphan()
        self.adrift.clear()
        self.counts.reset()
        self.store.after_fork()

    def direct(self) -> bool:
        """Whether this call must run its function directly: switched off, or re-entered from inside."""
        return self.bypassed > 0 or inside() or self.store.is_owned() or switched_off()
