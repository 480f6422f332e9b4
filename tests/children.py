"""Forked children that tell what came of something, in text, and never hang the test."""

from __future__ import annotations

import os
import select
import signal
import warnings
from collections.abc import Callable
from typing import NoReturn

__all__ = ["answer", "answered", "in_child"]

PATIENCE = 20.0


def in_child(run: Callable[[], object]) -> str:
    """What `run` returns or raises in a forked child, as text; fails if the child does not answer."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():  # newer Pythons warn about forking with threads: that is what is tested
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        answer(writer, run)
    return answered(child, reader, writer)


def answer(writer: int, run: Callable[[], object]) -> NoReturn:
    """In the child: write what `run` returns or raises, and exit."""
    try:
        os.write(writer, repr(run()).encode())
    except BaseException as error:
        os.write(writer, repr(error).encode())
    finally:
        os._exit(0)


def answered(child: int, reader: int, writer: int) -> str:
    """In the parent: what the child has written; it is ended, whatever it does."""
    try:
        ready, _, _ = select.select([reader], [], [], PATIENCE)
        assert ready, "the child hangs"
        return os.read(reader, 10_000).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
