"""A forked child that runs something and tells what came of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

__all__ = ["in_child"]

REAL_PATIENCE = 10  # seconds after which the child is killed


def in_child(run: Callable[[], None]) -> str:
    """What is wrong when this runs in a forked child; nothing when it returns there."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        told = "it ended otherwise"
        try:
            signal.alarm(REAL_PATIENCE)
            run()
            told = ""
        except BaseException as error:
            told = repr(error)
        finally:
            os.write(writer, told.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:
        told = answer.read()
    _, status = os.waitpid(child, 0)
    return told or (f"it ended with status {status}" if status else "")
