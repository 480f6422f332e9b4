"""A copy of the library that runs under the scheduler: its own modules, on the scheduler's primitives.

The copy is loaded from the same files under another name, with `threading`, `time` and `os.register_at_fork`
replaced while its modules are executed. A *mutant* is a copy with some source text replaced.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import singleflight

from . import primitives
from .baton import running
from .lines import Lines, codes_within

__all__ = ["Library", "Mutation"]

Mutation = Mapping[str, Mapping[str, str]]
"""Module -> text that occurs in it once -> what stands there instead."""

_folder = Path(singleflight.__file__).parent
_copies = itertools.count(1)


def _modules() -> list[Path]:
    """The files of the library's modules; not those of its packages, nor of the accounts."""
    return [path for path in sorted(_folder.glob("*/*.py")) if path.parent.name != "accounts"]


def _place(path: Path) -> Path:
    """Where a module is in the package: `core/coordinator`, or `testing` for a package's own file."""
    place = path.relative_to(_folder).with_suffix("")
    return place.parent if place.name == "__init__" else place


for _path in _modules():  # so that all of the standard library that a copy needs is loaded, as it is
    importlib.import_module(".".join((singleflight.__name__, *_place(_path).parts)))


class Library:
    """One copy. `package` is its `singleflight`; `module("coordinator")` any of its modules."""

    def __init__(self, mutation: Mutation | None = None) -> None:
        self.name = f"{singleflight.__name__}_{next(_copies)}_under_the_scheduler"
        self._mutation = mutation or {}
        self._at_fork: list[Callable[[], object]] = []
        self._codes: dict[str, list[CodeType]] = {}
        self._finder = _Finder(self)
        sys.meta_path.insert(0, self._finder)
        self.package: Any = importlib.import_module(self.name)
        # It switches at lines of Python, so hits are served there too: the finder finds no extension.
        assert not getattr(self.package, "accelerated", False)
        self._places = {path.stem: ".".join((self.name, *path.parts)) for path in map(_place, _modules())}
        for place in self._places.values():  # also those that are imported when they are needed
            importlib.import_module(place)
        missed = set(self._mutation) - set(self._codes)
        assert not missed, f"no such modules: {missed}"
        self.module("pool").executor_kind = lambda: Pool

    def forget(self) -> None:
        """It is not used any more."""
        sys.meta_path.remove(self._finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == self.name]:
            del sys.modules[name]

    def module(self, name: str) -> Any:
        return sys.modules[self._places[name]]

    def lines(self, *names: str) -> Lines:
        """A tracer of these modules' lines."""
        # Those of the functions first: equal codes are one, and some functions run a copy of theirs.
        codes = [each for name in names for each in (*self._functions(name), *self._codes[name])]
        return Lines(code for each in codes for code in codes_within(each))

    def _functions(self, name: str) -> list[CodeType]:
        module = self.module(name)
        functions = [each for each in vars(module).values() if isinstance(each, types.FunctionType)]
        return [each.__code__ for each in functions if each.__module__ == module.__name__]

    def reset(self) -> None:
        """After a run that failed, and may have left anything anywhere."""
        self.module("mutex").mutex._at_fork_reinit()
        for name, attribute in (("waitgraph", "waiting"), ("waitgraph", "below"), ("unsettled", "unsettled")):
            getattr(self.module(name), attribute).clear()
        self.module("pool").after_fork()

    def after_fork(self) -> None:
        """What the library has itself called in a forked child."""
        for hook in self._at_fork:
            hook()

    def execute(self, module: types.ModuleType, path: Path) -> None:
        """Compile and run a module of the copy."""
        text = path.read_text(encoding="utf-8")
        for old, new in self._mutation.get(path.stem, {}).items():
            assert text.count(old) == 1, (
                f"{path.stem}: the text to replace is there {text.count(old)} times: {old}"
            )
            text = text.replace(old, new)
        code = compile(text, str(path), "exec")
        self._codes.setdefault(path.stem, []).append(code)
        with self._stand_ins():
            exec(code, module.__dict__)

    @contextlib.contextmanager
    def _stand_ins(self) -> Iterator[None]:
        stand_in: Any = types.ModuleType("os")
        stand_in.__dict__.update(vars(os))
        stand_in.register_at_fork = lambda *, after_in_child: self._at_fork.append(after_in_child)
        stand_ins = {**primitives.modules(), "os": stand_in}
        real = {name: sys.modules[name] for name in stand_ins}
        sys.modules.update(stand_ins)
        try:
            yield
        finally:
            sys.modules.update(real)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, library: Library) -> None:
        self._library = library

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        package, _, module = name.partition(".")
        if package != self._library.name:
            return None
        place = _folder.joinpath(*module.split(".")) if module else _folder
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if not file.exists():
            return None
        spec = importlib.util.spec_from_loader(name, self, is_package=place.is_dir())
        assert spec is not None
        spec.loader_state = file
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        assert module.__spec__ is not None
        self._library.execute(module, module.__spec__.loader_state)


class Pool:
    """As `ThreadPoolExecutor`, as far as the library uses it: actors do the jobs, so many at a time."""

    def __init__(self, threads: int, thread_name_prefix: str = "") -> None:
        self._threads = threads
        self._running = 0
        self._jobs: list[Callable[[], object]] = []

    def submit(self, run: Callable[..., object], *args: object) -> None:
        scheduler = running()
        assert scheduler is not None
        self._jobs.append(lambda: run(*args))
        if self._running < self._threads:
            self._running += 1
            scheduler.spawn(self._work, f"pool{self._running}")
        scheduler.point()

    def shutdown(self, wait: bool = True) -> None:
        pass

    def _work(self) -> None:
        while self._jobs:
            self._jobs.pop(0)()
        self._running -= 1
