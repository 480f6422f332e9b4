"""Recording: listeners that note each event with its time and its thread or task, within limits."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ..common.messages import cut, shown
from ..locks.mutex import new_lock
from ..locks.slots import numbers
from ..locks.waiters import running_loop
from ..telemetry.kinds import ALL_KINDS
from .notes import BEGAN, ENDED, WITHOUT_KEY, Lane, Note, counted_as, detail_of

__all__ = ["Recorder"]

F = TypeVar("F", bound=Callable[..., Any])

_SCALARS = frozenset((str, int, float, bool, bytes, type(None)))
_REMEMBERED = 10_000  # keys of one function whose lane is found without making their text
_LONGEST_KEY = 500  # characters of a string that is remembered so


class Recorder:
    """Notes the events of any number of functions. All threads and tasks write to it.

    Args:
        most: how many notes are kept; what comes later is counted alone.
        timer: a clock, in seconds.
        hits: whether hits are noted.

    `list.append` is one operation, so notes need no lock. `_lock` is re-entrant, since events may be told by
    a signal handler or finaliser; it guards the lists of lanes and actors, and what is dropped.
    """

    def __init__(self, most: int, timer: Callable[[], float], hits: bool) -> None:
        self._most, self._timer = most, timer
        self.wants: frozenset[str] = ALL_KINDS if hits else ALL_KINDS - {"hit"}
        self._lock = new_lock()
        self._notes: list[tuple[Any, ...]] = []
        self._local = threading.local()
        self._tasks: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._open = False
        self.functions: list[str] = []
        self.lanes: list[Lane] = []
        self.actors: list[str] = []
        self.dropped: dict[str, int] = {}  # events, by kind
        self.uncounted: dict[tuple[int, str], int] = {}  # what those count as: function, count
        self.began: float = 0.0
        self.ended: float = 0.0
        self.first_flight: int = 0  # flights with a lower number began before the recording

    @property
    def is_open(self) -> bool:
        """Return True while it records."""
        return self._open

    def open(self) -> None:
        """Record from now on."""
        self.first_flight = next(numbers)
        self.began = self._timer()
        self._open = True

    def close(self) -> None:
        """Record nothing more."""
        self.ended = self._timer()
        self._open = False
        with self._lock:
            self._tasks.clear()

    def now(self) -> float:
        """Return until when it has recorded."""
        return self._timer() if self._open else self.ended

    def notes(self) -> list[Note]:
        """Return the notes so far, in the order in which they came."""
        return [Note(*raw) for raw in self._notes.copy()]

    # -- writing --------------------------------------------------------------------------------------

    def listener_of(self, name: str) -> Channel:
        """Return the listener for one function."""
        with self._lock:
            self.functions.append(name)
            return Channel(self, len(self.functions) - 1)

    def note(self, function: int, kind: str, sequence: int, lane: int, detail: Any, at: float) -> None:
        """Add one note."""
        self._notes.append((function, kind, sequence, at, lane, self._actor(), detail))

    def is_full(self) -> bool:
        """Return True if no more notes are kept."""
        return len(self._notes) >= self._most

    def drop(self, function: int, kind: str, detail: Any) -> None:
        """Count an event that is not kept."""
        counted = counted_as(kind, detail)
        is_call = kind == "fetch" and detail["execution_id"] == detail["flight_id"]
        with self._lock:
            self.dropped[kind] = self.dropped.get(kind, 0) + 1
            for count in filter(None, (counted, "calls" if is_call else None)):
                self.uncounted[function, count] = self.uncounted.get((function, count), 0) + 1

    def lane(self, function: int, text: str, label: str) -> int:
        """Add a lane; return its place."""
        with self._lock:
            self.lanes.append(Lane(function, text, label))
            return len(self.lanes) - 1

    def time(self) -> float:
        """Return the time by the clock of the recording."""
        return self._timer()

    def _actor(self) -> int:
        """Return the place of the running task, or of this thread."""
        if running_loop() is not None:
            task = sys.modules["asyncio"].current_task()
            if task is not None:
                return self._task(task)
        try:
            return self._local.place  # type: ignore[no-any-return]
        except AttributeError:
            place = self._local.place = self._add_actor(threading.current_thread().name)
            return place

    def _task(self, task: Any) -> int:
        known = self._tasks.get(id(task))
        if known is not None and known[0]() is task:
            return known[1]
        get_name = getattr(task, "get_name", None)
        place = self._add_actor(str(task) if get_name is None else get_name())
        if len(self._tasks) >= _REMEMBERED:
            with self._lock:
                self._tasks = {key: pair for key, pair in self._tasks.copy().items() if pair[0]() is not None}
        self._tasks[id(task)] = weakref.ref(task), place
        return place

    def _add_actor(self, name: str) -> int:
        with self._lock:
            self.actors.append(cut(name))
            return len(self.actors) - 1

    def track(self, function: F, name: str, key: Callable[..., Hashable] | None) -> F:
        """Return the function, each call of which is noted while the recording is open."""
        channel = self.listener_of(name)

        @functools.wraps(function)
        def tracked(*args: Any, **kwargs: Any) -> Any:
            end = channel.begin(args, kwargs, key)
            try:
                value = function(*args, **kwargs)
            except BaseException as error:
                end(error)
                raise
            end(None)
            return value

        @functools.wraps(function)
        async def tracked_task(*args: Any, **kwargs: Any) -> Any:
            end = channel.begin(args, kwargs, key)
            try:
                value = await function(*args, **kwargs)
            except BaseException as error:
                end(error)
                raise
            end(None)
            return value

        return tracked_task if inspect.iscoroutinefunction(function) else tracked  # type: ignore[return-value]


class Channel:
    """The listener of one function.

    `_known` finds the lane of a key that is made of strings and numbers without making its text; other keys
    are not held, so that a recording keeps no object of the user's alive.
    """

    def __init__(self, recorder: Recorder, function: int) -> None:
        self._recorder, self._function = recorder, function
        self.wants: frozenset[str] = recorder.wants
        self._known: dict[Hashable, int] = {}
        self._lanes: dict[tuple[int, str], int] = {}
        self._calls = 0

    def __call__(self, event: Any, /) -> None:
        """Note an event."""
        recorder = self._recorder
        if not recorder.is_open:
            return
        detail = detail_of(event)
        if recorder.is_full():
            recorder.drop(self._function, event.kind, detail)
            return
        key, at = event.key, recorder.time()
        if event.kind in WITHOUT_KEY:
            lane = -1
        else:
            known = self._known.get(key) if _is_plain(key) else None
            lane = self._lane(key) if known is None else known
        recorder.note(self._function, event.kind, event.sequence, lane, detail, at)

    def begin(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], key_of: Callable[..., Hashable] | None
    ) -> Callable[[BaseException | None], None]:
        """Note that a call begins; return what notes its end."""
        recorder, function = self._recorder, self._function
        if not recorder.is_open:
            return _end_nothing
        key = _arguments(args, kwargs) if key_of is None else key_of(*args, **kwargs)
        if recorder.is_full():
            recorder.drop(function, BEGAN, {})
            return _end_nothing
        lane, began = self._lane(key), recorder.time()
        with recorder._lock:
            self._calls += 1
            number = self._calls
        recorder.note(function, BEGAN, number, lane, {"call": number}, began)

        def end(error: BaseException | None) -> None:
            if recorder.is_open:
                failure = None if error is None else type(error).__name__
                detail = {"call": number, "error": failure}
                recorder.note(function, ENDED, number, lane, detail, recorder.time())

        return end

    def _lane(self, key: Hashable) -> int:
        """Return the lane of a key, a new one if it has none."""
        text, label = shown(key), _label(key)
        try:
            number = hash(key)
        except Exception:  # the key's own
            number = 0
        known = number, text
        with self._recorder._lock:
            lane = self._lanes.get(known)
            if lane is None:
                lane = self._lanes[known] = self._recorder.lane(self._function, text, label)
            if _is_plain(key) and len(self._known) < _REMEMBERED:
                self._known[key] = lane
        return lane


def _label(key: Hashable) -> str:
    """Return a key as it is written beside its lane: an only argument as itself, a string without quotes."""
    if type(key) is tuple and len(key) == 1:
        key = key[0]
    return cut(key) if type(key) is str and key.strip() else shown(key)


def _is_plain(key: Any) -> bool:
    """Return True if a key is a short string or number, or a tuple of them: it may be held."""
    if type(key) is tuple:
        for part in key:
            if type(part) not in _SCALARS or (type(part) in (str, bytes) and len(part) > _LONGEST_KEY):
                return False
        return len(key) < 20
    return type(key) in _SCALARS and not (type(key) in (str, bytes) and len(key) > _LONGEST_KEY)


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a call of an undecorated function is shown by."""
    if not kwargs:
        return args[0] if len(args) == 1 else args
    return (*args, *(f"{name}={shown(value)}" for name, value in kwargs.items()))


def _end_nothing(_: BaseException | None) -> None:
    """The recording does not know of this call."""
