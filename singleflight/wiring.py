"""Putting one decorated function together: its memo, its compiled calls, and how it binds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from . import _threads
from ._compile import CallForms, parameters_of, takes_instance
from .counts import Counts, ThreadedHits, has_global_lock
from .keys import Instances, check_key_function, explain_unhashable
from .memo import Memo
from .options import Options, switched_off

__all__ = ["Home"]


class Home:
    """What one decorated function and its bound methods share; holds the compiled calls."""

    def __init__(self, wrapped: Any, options: Options, key: Callable[..., Hashable] | None, name: str | None):
        self.wrapped = wrapped
        self.static = isinstance(wrapped, staticmethod)
        self.of_class = isinstance(wrapped, classmethod)
        self.function = function = wrapped.__func__ if self.static or self.of_class else wrapped
        refuse_unfit(function)
        signature = parameters_of(function)
        self.bindable = takes_instance(signature) and not self.static
        called = getattr(function, "__qualname__", type(function).__qualname__)
        if key is not None:
            check_key_function(key, called, signature)
        module = getattr(function, "__module__", None)
        counts = Counts() if has_global_lock() else ThreadedHits()
        self.memo = Memo(name or (f"{module}.{called}" if module else called), function, options, counts, key)
        self.by_instance = self.of_class and key is None
        self.instances = Instances(self.memo.store.forget)
        self.forms = CallForms(
            function,
            signature,
            key is not None,
            lookup=self.memo.store.index.get,
            timer=options.timer,
            call=partial(_threads.call, self.memo),
            counts=counts,
            make_key=key,
            known=self.instances.known,
            meet=self.instances.meet,
            unhashable=partial(_unhashable, called, key is not None),
        )
        self.memo.fast_paths.append(self.forms.namespace)
        if switched_off():
            self.memo.shut()  # so that what is put is not served either
        self._splits: dict[bool, Any] = {}
        self.bound_kind: type | None = None  # the class of its bound methods, once there is one
        self.decorated: Callable[[], Any] = lambda: None  # a weak reference, once there is something

    def split(self, by_instance: bool) -> Callable[..., tuple[Any, Any, Any]]:
        """What finds the key and canonical arguments of a call."""
        if by_instance not in self._splits:
            self._splits[by_instance] = self.forms.split(by_instance)
        split: Callable[..., tuple[Any, Any, Any]] = self._splits[by_instance]
        return split

    def named(self, decorated: Any, owner: type[Any]) -> None:
        """It is an attribute of this class: is it one of its methods? Then plain calls know the instance."""
        defined_in = getattr(self.wrapped, "__qualname__", "").rpartition(".")[0]
        if self.bindable and self.memo.own_key is None and defined_in == owner.__qualname__:
            self.by_instance = True
            type(decorated).__call__ = staticmethod(self.forms.function(True))


def refuse_unfit(function: Any) -> None:
    name = getattr(function, "__qualname__", repr(function))
    if isinstance(function, type):
        raise TypeError(f"{name}: decorate a function or a method, not a class")
    if not callable(function):
        raise TypeError(f"single_flight_ttl decorates callables, got {function!r}")
    body = inspect.unwrap(function)
    while isinstance(body, partial):
        body = body.func
    if not inspect.isroutine(body):
        body = getattr(type(body), "__call__", body)  # noqa: B004
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise TypeError(f"{name}: a generator can be consumed once only, so it cannot be shared or stored")
    if inspect.iscoroutinefunction(body) or inspect.iscoroutinefunction(function):
        raise TypeError(f"{name}: coroutine functions are not supported, only plain functions and methods")


def _unhashable(
    called: str, own_key: bool, error: TypeError, key: Any, arguments: dict[str, Any]
) -> TypeError:
    return explain_unhashable(error, called, key, arguments, own_key)
