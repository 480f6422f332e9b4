"""Putting one decorated function together: its cache, its compiled calls, and how it binds."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from ..common.frames import looked_through
from ..common.keys import InstanceKey, Instances
from ..core.asked import Asked
from ..core.cache import Cache
from ..core.coordinator import new_cache
from ..core.functions import is_coroutine_function, refuse_unfit
from ..core.options import Options, switched_off
from ..drivers import threads
from ..process.registry import register
from ..storage.record import ABSENT
from ..telemetry.counters import new_counts
from .accelerate import Accelerator, is_simple
from .callforms import CallForms, can_bind
from .keyforms import KeyForm, KeyRule
from .parameters import ANY, UNKNOWN, Parameters, parameters_of
from .signatures import check_key_function, explain_unhashable, have_equal_keys, refuse_twin, takes_any_number

__all__ = ["Assembly", "TwinGroup"]


class TwinGroup:
    """What decorated functions that share a cache have in common: which first arguments are instances.

    On a bound method the first argument is one. A plain call (`Account.price(account)`, a property that calls
    the function below it) has to be told: either all of its first arguments are instances, or those of
    classes that the function was seen on are.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.instances: Instances = Instances(cache.store.forget)
        self.assemblies: list[Assembly] = []
        self.of_methods: bool = False  # all first arguments are instances
        self._owners: tuple[weakref.ref[type[Any]], ...] = ()  # replaced as a whole: readers take no lock

    def first(self, value: Any) -> Any:
        """What stands for the first argument of a plain call in a default key."""
        return self.instance(value) or value

    def instance(self, value: Any) -> Any:
        """What stands for the first argument of a plain call if it is an instance, else None."""
        return self.instances.meet(value) if self.is_owner(value) else None

    def is_owner(self, value: Any) -> bool:
        """Return True if the first argument of a plain call is an instance.

        The classes are not asked, as by `isinstance`: a Protocol does not answer, and an ABC takes in others.
        """
        if self.of_methods:
            return True
        return any(owner is not None and type.__instancecheck__(owner, value) for owner in self.owners())

    def has_met(self, value: Any) -> bool:
        """Return True if a call was bound to this instance, or given it where instances are known."""
        return id(value) in self.instances.known

    def owners(self) -> list[type[Any] | None]:
        """The classes that it was seen on; None for those that are gone."""
        return [owner() for owner in self._owners]

    def add(self, assembly: Assembly, method: bool) -> None:
        """Add a function, which is a method or not."""
        self.assemblies.append(assembly)
        if method and not self.of_methods:
            self.has_methods()
        elif self.of_methods or self._owners:
            assembly.see_instances()

    def has_methods(self) -> None:
        """All plain calls are given the instance first."""
        cache = self.cache
        if cache.tier is not None and self.assemblies and self.assemblies[0].form.owned:
            raise TypeError(
                f"store: {cache.name} is a method, and other processes cannot tell its instances: pass key="
            )
        self.of_methods = True
        for assembly in self.assemblies:
            assembly.see_instances()

    def seen_on(self, owner: type[Any]) -> None:
        """It is an attribute of this class; plain calls on the class's instances know them."""
        if not self.of_methods and owner not in self.owners():
            self._owners = (*(ref for ref in self._owners if ref() is not None), weakref.ref(owner))
            for assembly in self.assemblies:
                assembly.see_instances()


class Assembly:
    """What one decorated function and its bound methods share; holds the compiled calls."""

    kind: Any  # the class of the decorated function itself; set when that is made
    function: Any
    called: str
    form: KeyForm
    twins: TwinGroup

    def __init__(
        self,
        wrapped: Any,
        options: Options,
        rule: KeyRule,
        name: str | None,
        twin_of: Assembly | None = None,
    ) -> None:
        self.wrapped = wrapped
        self.static: bool = isinstance(wrapped, staticmethod)
        self.of_class: bool = isinstance(wrapped, classmethod)
        self.function = function = wrapped.__func__ if self.static or self.of_class else wrapped
        refuse_unfit(function, "single_flight_ttl" if twin_of is None else "twin")
        self.coroutine: bool = is_coroutine_function(function)
        self.parameters: Parameters = parameters_of(function)
        self.bindable: bool = self.of_class or (can_bind(function, self.parameters) and not self.static)
        self.called = called = getattr(function, "__qualname__", type(function).__qualname__)
        method = self.of_class or (self.bindable and _looks_like_a_method(function, self.parameters, rule))
        guarded = True
        if rule.own and self.parameters.signature is not ANY:
            if not check_key_function(rule.key, called, self.parameters):
                self.parameters = UNKNOWN  # the key is called as the function is
            guarded = takes_any_number(rule.key)
        if twin_of is None:
            self.form = rule.form(called, self.parameters)
            module = getattr(function, "__module__", None)
            known_as = name or (f"{module}.{called}" if module else called)
            self.twins = TwinGroup(new_cache(known_as, options, new_counts(), rule))
            if rule.typed:
                self.twins.cache.locks.filed = self.form.filing()
            if options.store is not None:
                self.twins.cache.tier = options.store.tier_for(self.twins.cache, function)
                self.twins.cache.choose_way()
        else:
            self.form = self._form_of_twin(twin_of, rule, method or twin_of.twins.of_methods)
            self.twins = twin_of.twins
        self.cache: Cache = self.twins.cache
        driver = self._driver()
        self.accelerator: Accelerator | None = Accelerator.of(self.cache)
        self.forms: CallForms = CallForms(
            function,
            self.parameters if guarded and not self.form.by_name else self.parameters._replace(certain=True),
            self.form,
            self.coroutine,
            lookup=self.cache.store.lookup,
            absent=ABSENT,
            timer=options.timer,
            driver=driver,
            cache=self.cache,
            run=function,
            run_bound=self._bound_run(),
            counts=self.cache.counts,
            copy=self.cache.copy,
            told=self.cache.told if self.cache.tells_hits else None,
            make_key=rule.key,
            typed=self.form.typing(),
            known=self.twins.instances.known,
            meet=self.twins.instances.meet,
            first=self.twins.first,
            instance=self.twins.instance,
            unhashable=partial(_unhashable, called, self.form, _defaults(self.parameters)),
            **(self.accelerator.names() if self.accelerator else {}),
        )
        with self.cache.switching:
            self.cache.fast_paths.append(self.forms.namespace)
            if self.cache.bypassed or switched_off():
                self.cache.shut()  # so that what is put is not served either
            else:
                self.cache.reopen()  # the store's index may have been replaced since the look-up was read
        self._splits: dict[tuple[bool, bool], Any] = {}
        self.bound_kind: type | None = None  # the class of its bound methods, once there is one
        self.alive: Callable[[], Any] = lambda: None  # a weak reference to the function, once there is one
        self.by_instance: bool = False  # whether plain calls look for instances
        self.in_c: bool = False  # whether the function is called in C
        self.twins.add(self, method)

    def _form_of_twin(self, other: Assembly, rule: KeyRule, of_methods: bool) -> KeyForm:
        """How a twin's keys are made; refused if it could not have the same ones."""
        if self.of_class is not other.of_class:
            first, second = (self, other) if self.of_class else (other, self)
            raise TypeError(f"twin: {first.called} is a class method and {second.called} is not")
        if rule.own:
            return other.form
        ours, theirs = self.parameters, other.parameters
        if rule.names is None:
            fits = have_equal_keys(ours.signature, theirs.signature, rule.ignore)
        else:
            fits = all(name.partition(".")[0] in ours.signature.parameters for name in rule.names)
        form = rule.form(self.called, ours, is_twin=True) if fits else None
        if form is not None and form.by_name:
            as_ours = other.form._replace(left_out=form.left_out, owned=form.owned)
            fits = form == as_ours and not (of_methods and form.owned is not other.form.owned)
        if not fits:
            if ours.certain and theirs.certain:
                refuse_twin(self.called, ours.signature, other.called, theirs.signature, rule.names)
            # A wrapper may take others than it shows. Twins are called alike: the first one's count.
            self.parameters = theirs._replace(exact=False)
            form = None
        elif ours.certain is not theirs.certain:
            self.parameters = ours._replace(exact=False, certain=theirs.certain)
        return form or rule.form(self.called, self.parameters, is_twin=True)

    def decorated(self) -> Any:
        """The decorated function; made anew where only bound methods of it are left."""
        return self.alive() or self.make()

    def make(self) -> Any:
        """A decorated function."""
        return self.fill(self.kind.__new__(self.kind))

    def fill(self, made: Any) -> Any:
        """Give it its content: what a class or static method holds, so it answers as a function does."""
        self.wrap(made)
        if self.in_c:
            self.accelerator.attach(made, self._as_method())  # type: ignore[union-attr]
        self.alive = weakref.ref(made)
        register(made)
        return made

    def wrap(self, made: Any) -> None:
        """Have it show the function."""
        self.kind.__init__(made, self.function, _not_called)

    def plain_call(self) -> Any:
        """The compiled form of plain calls."""
        return staticmethod(self.forms.function(self.by_instance))

    def owner_of(self, instance: Any) -> InstanceKey:
        """What stands for an instance or class in the keys; raises `TypeError` where these are the user's."""
        if not self.form.owned:
            raise TypeError(
                f"clear: the `key` of {self.called} does not tell which instance an entry belongs to; use "
                f"`invalidate_where(predicate)`, or `clear()` on the function itself for all instances"
            )
        known = self.twins.instances
        return known.known.get(id(instance)) or known.meet(instance)

    def see_instances(self) -> None:
        """From now on plain calls look for instances."""
        if self.twins.of_methods:
            self.forms.namespace["_sf_run"] = self.forms.namespace["_sf_run_bound"]
        anew = not self.by_instance and self.form.owned
        if anew:
            self.by_instance = True
        if self.in_c:
            self._describe()
            made = self.alive()
            if made is not None:
                self.accelerator.attach(made, self._as_method())  # type: ignore[union-attr]
        elif anew and hasattr(self, "kind"):
            self.kind.__call__ = self.plain_call()

    def call_in_c(self) -> None:
        """Have the function called in C, where that was built, if its calls are simple; before it is made."""
        if self.accelerator is None or self.static or self.of_class:
            return
        if is_simple(self.parameters, self.form):
            self.in_c = True
            self.accelerator.furnish(self.kind)
            self._describe()

    def _describe(self) -> None:
        """The function's calls are read in C as they are now."""
        assert self.accelerator is not None
        self.accelerator.describe(
            partial(self.forms.function, self.by_instance),
            self.coroutine,
            self.parameters,
            self.form,
            self.forms.namespace,
            self.twins.first if self.by_instance else None,
            self.twins.of_methods,
        )
        self.kind = self.accelerator.kind(self._as_method())

    def _as_method(self) -> bool:
        """Return True if Python may call the function with the instance, without binding it."""
        return self.twins.of_methods and self.bindable

    def split(self, bound: bool) -> Callable[..., tuple[Any, Any, Any]]:
        """What finds the key and canonical arguments of a call."""
        wanted = self.by_instance, bound
        split: Callable[..., tuple[Any, Any, Any]] | None = self._splits.get(wanted)
        if split is None:
            split = self._splits[wanted] = self.forms.split(*wanted)
        return split

    @looked_through
    def renew(self, bound: bool, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function now, whatever is stored."""
        run = self.forms.namespace["_sf_run_bound" if bound else "_sf_run"]
        return self._driver()(self.cache, run, key, args, kwargs, renew=True)

    @looked_through
    def answer(self, bound: bool, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function, and say how the call was served; on a coroutine function, await this."""
        names, asked = self.forms.namespace, Asked(self.cache)
        serve = partial(
            names["_sf_driver"], self.cache, names["_sf_run_bound" if bound else "_sf_run"], key, args, kwargs
        )
        if self.coroutine:
            return self._answer_in_task(asked, key, serve)
        if not asked.look(names["_sf_lookup"], key):
            asked.value = serve(asked=asked)
        return asked.answer(key)

    async def _answer_in_task(self, asked: Asked, key: Any, serve: Callable[..., Any]) -> Any:
        if not asked.look(self.forms.namespace["_sf_lookup"], key):
            asked.value = await serve(asked=asked)
        return asked.answer(key)

    def named(self, owner: type[Any]) -> None:
        """It is an attribute of this class: is it a method? Then all plain calls are given instances."""
        if self.bindable and _defined_in(self.function) == owner.__qualname__:
            self.twins.has_methods()
        else:
            self.seen_on(owner)

    def seen_on(self, owner: type[Any] | None) -> None:
        """It was found on this class, perhaps without having been defined there."""
        if owner is not None and self.bindable:
            self.twins.seen_on(owner)

    def _driver(self) -> Any:
        """What serves the calls that the first check could not."""
        if not self.coroutine:
            return threads.call
        from ..drivers import tasks  # with its asyncio only where it is needed

        return tasks.call

    @looked_through
    def _bound_run(self) -> Callable[..., Any]:
        """The function for calls that have an instance: a decorator below ours may ask for being bound."""
        function, wrapped, of_class = self.function, self.wrapped, self.of_class
        if type(function) is types.FunctionType or not self.bindable:
            run: Callable[..., Any] = function
            return run

        def run_bound(*args: Any, **kwargs: Any) -> Any:
            if not args:
                return function(**kwargs)
            instance, *others = args
            binding = (None, instance) if of_class else (instance, type(instance))
            return wrapped.__get__(*binding)(*others, **kwargs)

        return run_bound


def _defined_in(function: Any) -> str:
    """The qualified name of the class, or of the function's locals, in which it was defined."""
    return str(getattr(function, "__qualname__", "")).rpartition(".")[0]


def _looks_like_a_method(function: Any, parameters: Parameters, rule: KeyRule) -> bool:
    """Defined in a class, with `self` first: a property or a wrapper above may hide it from the class.

    A default key has a class that comes first in any case; one by names only if it is taken for an instance.
    """
    place = _defined_in(function)
    first = next(iter(parameters.signature.parameters), None)
    is_instance = first == "self" or (first == "cls" and rule.names is not None)
    return bool(place) and not place.endswith("<locals>") and is_instance


def _not_called(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    """wrapt's own calling convention, for whoever calls `FunctionWrapper.__call__` explicitly."""
    return wrapped(*args, **kwargs)


def _defaults(parameters: Parameters) -> dict[str, Any]:
    """What stands for arguments that are left out."""
    shown = parameters.signature.parameters.values()
    return {p.name: p.default for p in shown if p.default is not p.empty}


def _unhashable(
    called: str,
    form: KeyForm,
    defaults: dict[str, Any],
    error: TypeError,
    key: Any,
    arguments: dict[str, Any],
) -> TypeError:
    return explain_unhashable(error, called, key, arguments, form, defaults)
