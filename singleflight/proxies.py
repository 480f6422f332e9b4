"""The door to wrapt: proxies that bind as functions do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:

    class FunctionWrapper:
        """What type checkers see instead; the classes below it say the rest."""

        def __init__(self, wrapped: object, wrapper: object) -> None: ...

    class BoundFunctionWrapper:
        """The same, bound."""

else:
    from wrapt import BoundFunctionWrapper, FunctionWrapper

__all__ = ["BoundFunctionWrapper", "FunctionWrapper"]
