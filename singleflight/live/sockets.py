"""The socket by which a process shows itself to other programs of the same user, and what they ask.

A question is one line of JSON, and so is the answer. The socket lies in a folder that nobody else may enter;
on Linux the kernel also says who asks. Nothing can be changed this way.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..common.logs import log
from ..common.messages import shown
from ..process.registry import report
from .snapshot import MOST_ENTRIES, snapshot

__all__ = ["NotServed", "ask", "folder", "serve", "served"]

_PATIENCE = 2.0  # seconds for one question and its answer: one who stalls does not keep the others out
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_PAUSE = 0.5  # seconds until it tries again after one of these: the process has no more files, or no memory
_LONGEST_QUESTION = 1000  # bytes
_LONGEST_ANSWER = 64 * 1024 * 1024


class NotServed(Exception):
    """That process does not show itself, or no more."""


class NoAnswer(NotServed):
    """It shows itself, and does not answer: it is stopped, or stands still in C code."""


def folder(place: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the sockets: this one, or the user's own.

    The user's own is in `XDG_RUNTIME_DIR`, or else among the temporary files. It is made if it is not there.
    Raises `PermissionError` if it belongs to another user, or others may enter it.
    """
    path = _usual() if place is None else _path(place)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_closed(path) or not _is_own(path):
        raise PermissionError(f"directory: {path} must be a folder of this user that no one else may enter")
    return path


def looked_into(place: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder in which one looks for sockets: this one, or the user's own. Nothing is made.

    The administrator may look into another user's. Raises `PermissionError` as `folder` does, and
    `FileNotFoundError` if the folder that was named is not there.
    """
    path = _usual() if place is None else _path(place)
    try:
        closed, own = _is_closed(path), _is_own(path)
    except FileNotFoundError:
        if place is not None:
            raise FileNotFoundError(f"directory: there is no folder {path}") from None
        return path
    if not closed or not (own or os.getuid() == 0):
        raise PermissionError(f"directory: {path} must be a folder of this user that no one else may enter")
    return path


def _usual() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    named = "singleflight" if runtime else f"singleflight-{os.getuid()}"
    return Path(runtime or tempfile.gettempdir(), named)


def _path(place: object) -> Path:
    if not isinstance(place, (str, os.PathLike)):
        raise TypeError(f"directory: expected a path, got {shown(place)}")
    return Path(place)


def _is_closed(path: Path) -> bool:
    """Return True if this is a folder (and no link) that only its owner may enter."""
    mode = path.lstat().st_mode
    return stat.S_ISDIR(mode) and not mode & 0o077


def _is_own(path: Path) -> bool:
    return path.lstat().st_uid == os.getuid()


def serve(directory: str | os.PathLike[str] | None = None, *, values: bool = False) -> Callable[[], None]:
    """Let `python -m singleflight top` and `report`, run by the same user, see this process.

    Args:
        directory: where the socket lies, `PID.sock`; by default a folder of this user alone, where those
            commands look. It is made if need be.
        values: whether they may ask for the values of entries, each cut to 200 characters. Without this no
            value leaves the process.

    Returns a callable that ends it; it may be called more than once. A second `serve` replaces the first. A
    forked child serves itself, on a socket of its own. The socket goes with the process; what a killed one
    left is removed by the next `top`.

    A thread of its own answers, and waits otherwise; calls of decorated functions pay nothing. It can only be
    looked at: nothing can be changed through the socket.

    Raises `RuntimeError` where there are no unix sockets, and `OSError` if the socket cannot be made
    (`PermissionError` for a folder that others may enter), and `TypeError` for wrong arguments. An earlier
    `serve` goes on then.

    Safe to call from any thread.
    """
    global _serving
    if not hasattr(socket, "AF_UNIX"):
        raise RuntimeError("serve: this platform's Python has no unix sockets")
    if not isinstance(values, bool):
        raise TypeError(f"values: expected True or False, got {shown(values)}")
    service = _Service(folder(directory), values)
    with _changing:
        before = _serving if _serving is not None and _serving.is_open() else None
        if before is not None:
            before.close()
        try:
            service.open()
        except BaseException:
            if before is not None:
                before.open()
            raise
        _serving = service
    return service.close


class _Service:
    """The socket of one process, and the thread that answers there."""

    def __init__(self, place: Path, values: bool) -> None:
        self.place, self.values = place, values
        self._path: Path | None = None
        self._listening: socket.socket | None = None

    def is_open(self) -> bool:
        """Return True if it listens."""
        return self._listening is not None

    def open(self) -> None:
        """Listen, and have a thread answer."""
        path = self.place / f"{os.getpid()}.sock"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()  # of this process, or of one that is no more: no other has its number
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen()
        except OSError as error:
            listening.close()
            if error.errno is None:  # Python's own: the path is longer than such an address may be
                raise OSError(
                    errno.ENAMETOOLONG, "directory: too long a path for a unix socket", str(path)
                ) from None
            raise
        self._path, self._listening = path, listening
        threading.Thread(
            target=self._answer_all, args=(listening,), name="singleflight-live", daemon=True
        ).start()

    def close(self) -> None:
        """Stop listening; may be repeated."""
        listening, self._listening = self._listening, None
        path, self._path = self._path, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread
            listening.close()
        if path is not None and path.name == f"{os.getpid()}.sock":
            with contextlib.suppress(OSError):
                path.unlink()

    def after_fork(self) -> None:
        """In a forked child: leave the parent's socket alone, and open one."""
        listening, self._listening, self._path = self._listening, None, None
        if listening is not None:
            listening.close()
            try:
                self.open()
            except OSError as error:
                log.warning("live: this forked process cannot be looked at: %s", error)

    def _answer_all(self, listening: socket.socket) -> None:
        while True:
            try:
                asking, _ = listening.accept()
            except OSError as error:
                if self._listening is not listening:
                    return  # it was closed
                if error.errno in _PASSING:
                    time.sleep(_PAUSE)
                    continue
                log.exception("live: this process can no longer be looked at")
                return
            with asking:
                try:
                    asking.settimeout(_PATIENCE)
                    if _is_ours(asking):
                        asking.sendall(_line(self._answer(_read_line(asking, _LONGEST_QUESTION))))
                except OSError:  # it has gone, or stalled
                    pass
                except Exception:
                    log.exception("live: a question could not be answered")

    def _answer(self, question: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(question)
            wanted = asked["want"]
            entries, values = asked.get("entries", 0), asked.get("values", False)
        except (ValueError, TypeError, KeyError, AttributeError):
            return {"error": f"not a question: {shown(question)}"}
        if wanted == "report":
            return {"report": report()}
        if wanted != "snapshot" or type(entries) is not int or not 0 <= entries <= MOST_ENTRIES:
            return {"error": f"not a question: {shown(asked)}"}
        if values and not self.values:
            return {"error": "this process does not show values: it was not started with serve(values=True)"}
        return {"snapshot": snapshot(entries, bool(values))}


def ask(
    pid: int,
    directory: str | os.PathLike[str] | None = None,
    patience: float = 2 * _PATIENCE,
    **question: Any,
) -> dict[str, Any]:
    """Ask a process for its `snapshot` or its `report`; return the answer.

    Raises `NotServed` if it does not show itself, `NoAnswer` if it does not answer within `patience` seconds,
    and `RuntimeError` if it refuses.
    """
    path = looked_into(directory) / f"{pid}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(patience)
        try:
            asking.connect(str(path))
            asking.sendall(_line(question))
            answer = json.loads(_read_line(asking, _LONGEST_ANSWER))
        except (ConnectionRefusedError, FileNotFoundError):
            if not _is_alive(pid):
                _remove(path)
            raise NotServed(
                f"process {pid} does not show itself; call singleflight.live.serve() in it"
            ) from None
        except (OSError, ValueError) as error:
            raise NoAnswer(f"process {pid} does not answer: {error}") from None
    if "error" in answer:
        raise RuntimeError(answer["error"])
    found: dict[str, Any] = answer
    return found


def served(directory: str | os.PathLike[str] | None = None) -> list[int]:
    """Return the processes of this user that show themselves; remove what killed ones left."""
    place = looked_into(directory)
    pids = sorted(int(path.stem) for path in place.glob("*.sock") if path.stem.isdigit())
    alive = [pid for pid in pids if _is_alive(pid)]
    for pid in set(pids).difference(alive):
        _remove(place / f"{pid}.sock")
    return alive


def _remove(path: Path) -> None:
    """Remove the socket of a process that was killed: one in a folder of this user at which nobody listens.

    It may belong to a process that cannot be seen from here, in another container: then somebody listens.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_PATIENCE)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            if _is_own(path.parent):
                path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # its number is now another user's process's
        return False
    return True


def _is_ours(asking: socket.socket) -> bool:
    """Return True if this user asks, or the administrator; the folder keeps out others on any system."""
    if not sys.platform.startswith("linux"):
        return True
    _, user, _ = struct.unpack(
        "3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return user in (os.getuid(), 0)


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"


def _read_line(asking: socket.socket, longest: int) -> bytes:
    """Return what comes before the end of the line; raise `OSError` if that is too long, or does not come."""
    parts: list[bytes] = []
    length = 0
    while not (parts and parts[-1].endswith(b"\n")):
        part = asking.recv(65536)
        length += len(part)
        if not part or length > longest:
            raise OSError("the line has no end")
        parts.append(part)
    return b"".join(parts)


_serving: _Service | None = None
_changing = threading.Lock()


def _after_fork() -> None:
    global _changing
    _changing = threading.Lock()
    if _serving is not None:
        _serving.after_fork()


def _at_exit() -> None:
    if _serving is not None:
        _serving.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
