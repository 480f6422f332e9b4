"""name, repr, dir and help: what a decorated function shows of itself, and tools that complete names."""

import _thread
import inspect
import pickle
import pydoc
import rlcompleter
import sys
import threading
from datetime import timedelta

import pytest

from singleflight import SingleFlightFunction, single_flight_ttl
from singleflight.core.options import Options
from singleflight.decorator.decorate import single_flight_ttl as decorator
from singleflight.decorator.display import doc_for

from ..builds import wrapt_built


@single_flight_ttl(ttl=60)
def plain(symbol):
    """The price of a symbol."""
    return 1


@single_flight_ttl(ttl=timedelta(minutes=1), grace=5, name="prices", key=str, copy=True)
def named(symbol):
    return 1


@named.twin
async def anamed(symbol):
    return 1


@named.bulk(max_batch=5)
def loaded(symbols):
    """Many prices."""
    return {}


class Account:
    @single_flight_ttl(ttl=60, name="quotes")
    def price(self, symbol):
        """The price of a symbol here."""
        return 1

    @price.bulk
    def prices(self, symbols):
        """Many prices here."""
        return {}

    @single_flight_ttl(ttl=60)
    @classmethod
    def rate(cls):
        """The rate."""
        return 1

    @single_flight_ttl(ttl=60)
    @staticmethod
    def fee():
        """The fee."""
        return 1


ALL = {
    "function": plain,
    "with options": named,
    "twin": anamed,
    "method": Account.price,
    "bound method": Account().price,
    "class method": Account.rate,
    "class method of an instance": Account().rate,
    "static method": Account.fee,
}
LOADERS = {"loader": loaded, "loading method": Account.prices, "bound loader": Account().prices}
EVERY = {**ALL, **LOADERS}
CONTROLS = {
    *("bypass", "cache_clear", "cache_info", "cache_parameters", "clear", "entry", "explain", "flights"),
    *("invalidate", "invalidate_where", "locks", "name", "put", "refresh", "stats"),
}


def test_names():
    """That of events and reports, on functions, methods, twins and loaders."""
    assert plain.name == f"{__name__}.plain"
    assert {named.name, anamed.name, loaded.name} == {"prices"}
    assert {each.name for each in (Account.price, Account().price, Account.prices, Account().prices)} == {
        "quotes"
    }
    assert Account.rate.name == Account().rate.name == f"{__name__}.Account.rate"


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
def test_the_name_is_read_only(function):
    """It cannot be set."""
    with pytest.raises(AttributeError):
        function.name = "other"


def test_what_a_repr_says():
    """The name, the ttl and the options that differ from the default."""
    assert f"{__name__}.plain(ttl=60): " in repr(plain)
    assert "prices(ttl=datetime.timedelta(seconds=60), grace=5.0, copy=True, key=<class 'str'>)" in repr(
        named
    )
    assert "aprice" not in repr(named)
    assert "anamed" in repr(anamed)
    assert "prices(ttl=" in repr(anamed)
    assert "prices(ttl=" in repr(loaded)
    assert "Account.price of " in repr(Account().price)
    assert "quotes(ttl=60)" in repr(Account().price)
    assert "maxsize" not in repr(single_flight_ttl(plain.__wrapped__, ttl=1, maxsize=1024))
    assert "max_idle_locks" not in repr(single_flight_ttl(plain.__wrapped__, ttl=1, maxsize=7))
    assert "max_idle_locks" not in repr(single_flight_ttl(plain.__wrapped__, ttl=1, maxsize=None))
    assert "(ttl=1, max_idle_locks=7)" in repr(single_flight_ttl(plain.__wrapped__, ttl=1, max_idle_locks=7))


def test_a_repr_is_bounded_and_guarded():
    """Whatever options and names are."""

    class Listener:
        def __call__(self, event): ...

        def __repr__(self):
            raise RuntimeError("no")

        def __eq__(self, other):
            raise RuntimeError("no")

    fetch = single_flight_ttl(plain.__wrapped__, ttl=1, listener=Listener(), name="n" * 10_000)
    assert "whose repr raised RuntimeError" in repr(fetch)
    assert len(repr(fetch)) < 1000


@pytest.mark.parametrize("truth", [False, RuntimeError("no")], ids=repr)
def test_a_key_that_is_not_true_is_shown(truth):
    """It is a callable like any other, and nobody asks whether it is true."""

    class First:
        def __call__(self, symbol):
            return symbol

        def __bool__(self):
            if isinstance(truth, Exception):
                raise truth
            return truth

        def __repr__(self):
            return "<the first>"

    fetch = single_flight_ttl(plain.__wrapped__, ttl=1, key=First())
    assert fetch("A") == 1
    assert "(ttl=1, key=<the first>)" in repr(fetch)


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_dir_has_the_controls(function):
    """In addition to what the function has, and nothing that raises when it is read."""
    names = dir(function)
    assert set(names) >= CONTROLS
    assert {"__doc__", "__call__"} <= set(names)
    assert not [name for name in names if name.startswith("_self_")]
    assert names == sorted(set(names))
    for name in names:
        if not name.startswith("_"):
            getattr(function, name)


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_dir_of_loaders(loader):
    """Has what they have."""
    assert {"max_batch", "name", "__call__"} <= set(dir(loader))


def test_attributes_of_the_function_are_listed_too():
    """Its own, and those that were set afterwards."""

    def fetch(self):
        return 1

    fetch.before = 1
    owner = type("Owner", (), {"fetch": single_flight_ttl(fetch, ttl=60)})
    owner.fetch.get = 2  # also under a name that others have for a control
    assert {"before", "get"} <= set(dir(owner.fetch)) & set(dir(owner().fetch))


def test_completion():
    """As the interactive interpreter completes names."""
    complete = rlcompleter.Completer({"plain": plain, "bound": Account().price}).attr_matches
    assert {"plain.invalidate(", "plain.invalidate_where("} <= set(complete("plain.inv"))
    assert {"bound.refresh("} <= set(complete("bound.ref"))


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
def test_help_shows_docstring_options_and_controls(function):
    """And the docstring itself stays the function's own."""
    told = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert (function.__doc__ or "") in told
    assert "ttl=" in told
    assert "Controls: " in told
    assert "invalidate" in told or "max_batch" in told
    assert inspect.getdoc(function) == function.__doc__
    assert "Controls" not in (function.__doc__ or "")


def asking(*modules):
    """Return a function of the first module; it calls one of the next, and the last reads a docstring."""
    ask, source = plain, "def call(): return ask.__doc__"
    for name in reversed(modules):
        exec(source, namespace := {"__name__": name, "ask": ask})
        ask, source = namespace["call"], "def call(): return ask()"
    return ask


@pytest.mark.parametrize(
    ("modules", "shown"),
    [
        (["pydoc"], True),
        (["pydoc", "inspect"], True),
        (["pydoc", "inspect", "inspect"], True),
        (["pydoc", "other"], False),
        (["pydoc", "other", "inspect"], False),
        (["inspect", "other"], False),
    ],
    ids=str,
)
def test_who_asks_for_a_docstring(modules, shown):
    """Help does, or what it has asked to, which from Python 3.15 on is in `inspect`."""
    doc = asking(*modules)()
    assert doc.startswith("The price of a symbol.")
    assert ("Single flight: " in doc) is shown


@pytest.mark.parametrize("length", [33, 34])
def test_what_help_adds_to_a_docstring(length):
    """The name and options, and the controls in lines of at most 80 characters."""

    def ask():
        return doc_for(sys._getframe(1), "Doc.", plain._self_cache, kind)

    names = ["a" * 34, "b" * length, "c"]
    kind = type("Kind", (), dict.fromkeys(names))
    exec("def call(): return ask()", namespace := {"__name__": "pydoc", "ask": ask})
    first, second = (names[:2], names[2:]) if length == 33 else (names[:1], names[1:])
    assert namespace["call"]().splitlines() == [
        "Doc.",
        "",
        f"Single flight: {__name__}.plain(ttl=60)",
        "",
        f"Controls: {', '.join(first)},",
        f"    {', '.join(second)}",
    ]


def test_a_docstring_read_at_the_bottom_of_a_thread():
    """Where nobody has called `inspect`."""
    told, ended = [], threading.Event()
    space = {"__name__": "inspect", "told": told, "ask": asking("inspect"), "ended": ended}
    exec("def call():\n    try: told.append(ask())\n    finally: ended.set()", space)
    _thread.start_new_thread(space["call"], ())
    assert ended.wait(20)
    assert told == [plain.__wrapped__.__doc__]


def test_docstrings_can_be_written():
    """On the function; help shows the new one, bound methods too."""

    def fetch(self):
        """Before."""

    owner = type("Owner", (), {"fetch": single_flight_ttl(fetch, ttl=60)})
    owner.fetch.__doc__ = "After."
    assert (owner.fetch.__doc__, owner().fetch.__doc__) == ("After.", "After.")
    assert "After." in pydoc.render_doc(owner().fetch)


@wrapt_built  # without, wrapt 2.5.2 keeps pydoc from looking at any class of a proxy before Python 3.13
def test_help_on_our_own_classes():
    """Is their docstring."""
    assert "Controls: " not in pydoc.render_doc(SingleFlightFunction)


def test_docstrings_of_our_own_classes():
    """Are also those of the classes that each function has."""
    assert SingleFlightFunction.__doc__ == type(plain).__doc__
    assert type(loaded).__doc__.startswith("A function that loads many keys")


def test_pickled_functions_are_the_same():
    """By reference, as before."""
    assert pickle.loads(pickle.dumps(plain)) is plain


def test_the_defaults_stand_twice():
    """What `Options` takes for a default is what `single_flight_ttl` has."""
    ours = inspect.signature(Options.checked).parameters
    shown = inspect.signature(decorator).parameters
    for name in ours:
        if name != "max_idle_locks":  # that depends on `maxsize`
            assert ours[name].default == shown[name].default, name
