"""Tells that `threading` was patched after this library was imported, as gevent and eventlet do it.

What was imported before holds the locks and the `get_ident` of real threads. All green threads of one real
thread then look like one caller: who asks for what another of them is fetching would be taken for whoever
fetches it. So that is told, where a function is decorated and where somebody would wait.
"""

from __future__ import annotations

import sys
import threading
import warnings
from types import FrameType

from .frames import MARK

__all__ = ["hint", "tell"]

_PACKAGE = __name__.rsplit(".", 2)[0] + "."
_get_ident = threading.get_ident
_WHY = (
    "threading was patched after singleflight was imported (by gevent or eventlet?), so green threads look "
    "like one caller, and a wait blocks all of them: patch first, and import singleflight after that"
)
_told: set[str] = set()


def hint() -> str:
    """What a refusal adds: nothing, or that its reason may be the patch."""
    return f"; {_WHY}" if threading.get_ident != _get_ident else ""


def tell(when: str) -> None:
    """Warn if it was patched: once for each occasion, and at the line outside this package."""
    if threading.get_ident == _get_ident or when in _told:
        return
    _told.add(when)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame):
        frame = frame.f_back
        level += MARK not in frame.f_code.co_filename  # those `warn` does not count
    warnings.warn(_WHY, RuntimeWarning, stacklevel=level)


def _is_ours(frame: FrameType) -> bool:
    """Return True if a frame is of this package's modules or of its compiled calls."""
    module = frame.f_globals.get("__name__")  # in a user's module it may be anything
    ours = type(module) is str and module.startswith(_PACKAGE)
    return ours or frame.f_code.co_filename.startswith("<singleflight ")
