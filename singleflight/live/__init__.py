"""A running process, looked at from outside: what `python -m singleflight top`, and its page, show.

>>> from singleflight import live
>>> stop = live.serve()  # from now on `python -m singleflight top` sees this process
>>> stop()
"""

from .snapshot import snapshot
from .sockets import serve

__all__ = ["serve", "snapshot"]
