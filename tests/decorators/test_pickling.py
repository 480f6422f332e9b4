"""What dask, Ray, joblib and Spark send to their workers is decorated there, with the same options."""

import copy
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from singleflight import BulkLoader, SingleFlightFunction, single_flight_ttl

cloudpickle = pytest.importorskip("cloudpickle")
ROOT = Path(__file__).parents[2]

WORKER = """
import asyncio, pickle, sys
content = pickle.load(sys.stdin.buffer)
"""


def there(content, program, dumps=cloudpickle.dumps):
    """Run a program in another process that has unpickled this content; what it prints, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER + program],
        input=dumps(content),
        capture_output=True,
        timeout=40,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def script(program, worker):
    """Run a script whose functions are those of `__main__`, then a worker that takes what it sends."""
    head = "import sys, cloudpickle\nfrom singleflight import single_flight_ttl\n"
    tail = "\nsys.stdout.buffer.write(cloudpickle.dumps(content))\n"
    sent = subprocess.run(
        [sys.executable, "-c", head + program + tail], capture_output=True, timeout=40, cwd=ROOT, check=False
    )
    assert sent.returncode == 0, sent.stderr.decode()
    return there(None, worker, lambda _: sent.stdout)


def local_function():
    factor = 3

    @single_flight_ttl(ttl=77, maxsize=5, name="tripled", grace=2, jitter=0.25, refresh_ahead=0.5)
    def tripled(number, *, more=0):
        """Triples."""
        print("called", number)
        return factor * number + more

    return tripled


def test_a_function_of_the_main_module_is_decorated_in_the_worker():
    """It has its controls and options there, and is called once for two calls."""
    told = script(
        """
@single_flight_ttl(ttl=77)
def f(k):
    print("called", flush=True)
    return k
content = f
""",
        """
print(type(content).__name__, content(1), content(1), content.stats().hits)
print(content.cache_parameters()["ttl"], content.cache_parameters()["name"], content.__qualname__)
""",
    )
    assert told == ["called", "SingleFlightFunction 1 1 1", "77 __main__.f f"]


def test_a_closure_keeps_all_its_options():
    """Whatever was passed to the decorator is the same in the worker, and the function works."""
    function = local_function()
    wanted = function.cache_parameters()
    told = there(
        (function, wanted),
        """
function, wanted = content
found = function.cache_parameters()
print([name for name in wanted if found[name] != wanted[name]], list(found) == list(wanted))
print(function(2), function(2, more=0), function.stats().calls, function.__doc__, function.invalidate(2))
""",
    )
    assert told == ["[] True", "called 2", "6 6 1 Triples. True"]


def test_options_that_are_functions_travel():
    """Lambdas as `key`, `ttl` and `cache_if`, and a clock, are there what they are here."""
    function = single_flight_ttl(
        key=lambda a: a.upper(),
        ttl=lambda landing: 7,
        cache_if=lambda value: value != "no",
        timer=lambda: 5.0,
    )(lambda a: a)
    told = there(
        function,
        """
print(content("yes"), content("YES"), content("no"), content("NO"), content.entry("Yes").ttl)
""",
    )
    assert told == ["yes yes no NO 7.0"]


@pytest.mark.parametrize("options", [{"key": "a", "typed": True}, {"ignore": ["b"], "typed": True}], ids=repr)
def test_names_of_parameters_travel(options):
    """A key by name, ignored arguments and typed keys are there what they are here."""
    function = single_flight_ttl(ttl=60, **options)(lambda a, b=0: a)
    told = there(
        function,
        """
print(content(1), content(1, 2), content(1.0, 3), content.stats().calls, content.entry(1.0).hits)
""",
    )
    assert told == ["1 1 1.0 2 0"]


def test_chance_is_not_shared():
    """Each process draws by its own generator: else all would renew and expire at the same time."""
    assert b"Random" not in cloudpickle.dumps(local_function())


def test_coroutine_functions_travel():
    """One that was awaited here is awaited there, by tasks of another loop."""

    @single_flight_ttl(ttl=60)
    async def doubled(number):
        return 2 * number

    told = there(
        doubled,
        """
import inspect
async def main():
    print(await asyncio.gather(content(1), content(1)), content.stats().calls)
    print(inspect.iscoroutinefunction(content))
asyncio.run(main())
""",
    )
    assert told == ["[2, 2] 1", "True"]


def test_twins_and_loaders_travel_with_their_first():
    """What shared its values here shares them there, whichever of them was sent."""

    @single_flight_ttl(ttl=60)
    def get(symbol):
        return "got " + symbol

    @get.twin
    async def aget(symbol):
        return "awaited " + symbol

    @get.bulk(max_batch=2)
    def many(symbols):
        return {symbol: "loaded " + symbol for symbol in symbols}

    @aget.bulk
    async def amany(symbols):
        return {symbol: "both " + symbol for symbol in symbols}

    for order in ([get, aget, many, amany], [amany, many, aget, get], [many, get, amany, aget]):
        content = dict(zip([f.__name__ for f in order], order, strict=True))
        told = there(
            content,
            """
get, aget, many, amany = (content[name] for name in ("get", "aget", "many", "amany"))
print(many(["a", "b"]), many.max_batch)
print(get("a"), asyncio.run(aget("b")), asyncio.run(aget("c")), get("c"))
print(asyncio.run(amany(["a", "d"])), get("d"), get.stats().entries)
""",
        )
        assert told == [
            "{'a': 'loaded a', 'b': 'loaded b'} 2",
            "loaded a loaded b awaited c awaited c",
            "{'a': 'loaded a', 'd': 'both d'} both d 4",
        ]


def test_a_twin_alone_brings_its_first():
    """It has its first's name and options, though nobody else has that there."""

    @single_flight_ttl(ttl=77, name="both")
    def get(symbol):
        return symbol

    @get.twin
    def other(symbol):
        return symbol

    told = there(
        other, "print(content('a'), content.cache_parameters()['ttl'], content.cache_parameters()['name'])"
    )
    assert told == ["a 77 both"]


@pytest.mark.parametrize("sent", ["count", "twice", "both"])
def test_functions_that_refer_to_themselves_travel(sent):
    """Recursive ones and those that call their own twin or loader, over globals, whichever is sent."""
    told = script(
        f"""
@single_flight_ttl(ttl=60)
def count(n):
    return 0 if n == 0 else 1 + count(n - 1) + 0 * len(both([n - 1]))

@count.twin
def twice(n):
    return 1 + count(n - 1)

@count.bulk
def both(numbers):
    return {{n: 0 if n == 0 else 1 + twice(n - 1) for n in numbers}}

content = {sent}
""",
        """
print(content([3])[3] if hasattr(content, "max_batch") else content(3))
""",
    )
    assert told == ["3"]


CLASS = """
class Account:
    def __init__(self, name):
        self.name = name

    @single_flight_ttl(ttl=60)
    def get(self, symbol):
        return self.name, symbol, isinstance(self, Account)

    @get.twin
    async def aget(self, symbol):
        return "never"

    @get.bulk
    def many(self, symbols):
        return {symbol: (self.name, symbol, "many") for symbol in symbols}

    @single_flight_ttl(ttl=60)
    @classmethod
    def of(cls, symbol):
        return cls.__name__, symbol

    @of.bulk
    @classmethod
    def of_many(cls, symbols):
        return {symbol: (cls.__name__, symbol, "many") for symbol in symbols}

    @classmethod
    @single_flight_ttl(ttl=60)
    def below(cls, symbol):
        return cls.__name__, symbol

    @single_flight_ttl(ttl=60)
    @staticmethod
    def at(symbol):
        return symbol

    @at.bulk
    @staticmethod
    def at_many(symbols):
        return {symbol: symbol * 2 for symbol in symbols}

    @property
    @single_flight_ttl(ttl=60)
    def shown(me):
        return "<" + me.name + ">"

    def itself(self):
        return super().__repr__ and __class__
"""


def test_classes_travel_with_their_methods():
    """Methods, twins, loaders, class and static methods of a class of `__main__` are decorated there."""
    told = script(
        CLASS + "\naccount = Account('mine')\naccount.get('here')\ncontent = Account, account\n",
        """
Account, account = content
print(account.get("a"), account.get("a"), asyncio.run(account.aget("a")), Account.get(account, "a"))
print(account.get.stats().calls, account.get.stats().hits, account.get.invalidate("a"))
print(account.many(["x"]), account.get("x"), account.get.entry("x").value)
print(Account.of("b"), account.of("b"), Account.of.stats().calls, Account.of.entry("b").value)
print(account.of_many(["y"]), Account.of("y"))
print(Account.below("c"), account.below("c"), vars(Account)["below"].__func__.stats().calls)
print(Account.at("d"), account.at("d"), Account.at.stats().calls, Account.at_many(["e"]), Account.at("e"))
print(account.shown, account.shown, account.itself() is Account)
other = Account("other")
print(other.get("a"), other.shown)
""",
    )
    assert told == [
        "('mine', 'a', True) " * 3 + "('mine', 'a', True)",
        "1 3 True",
        "{'x': ('mine', 'x', 'many')} ('mine', 'x', 'many') ('mine', 'x', 'many')",
        "('Account', 'b') ('Account', 'b') 1 ('Account', 'b')",
        "{'y': ('Account', 'y', 'many')} ('Account', 'y', 'many')",
        "('Account', 'c') ('Account', 'c') 1",
        "d d 1 {'e': 'ee'} ee",
        "<mine> <mine> True",
        "('other', 'a', True) <other>",
    ]


def test_a_method_is_one_there_before_its_class_is_looked_at():
    """A plain call is given an instance first, which need not be hashable: what was sent says so."""
    told = script(
        """
class Account:
    __hash__ = None
    @single_flight_ttl(ttl=60)
    def get(me, symbol):
        return symbol
content = Account(), vars(Account)["get"]
""",
        """
account, get = content
print(get(account, "a"), get(account, "a"), get.stats().calls)
""",
    )
    assert told == ["a a 1"]


SENT = {
    "account.get": "content('a')",
    "account.aget": "asyncio.run(content('a'))",
    "account.many": "content(['a'])['a']",
    "Account.of": "content('a')",
    "Account.of_many": "content(['a'])['a']",
    "Account.at": "content('a')",
    "Account.at_many": "content(['a'])['a']",
    "account.at_many": "content(['a'])['a']",
    "Account.get": "content(content.__globals__['Account']('mine'), 'a')",
    "vars(Account)['of']": "content.__func__(int, 'a')",
    "vars(Account)['at']": "content.__func__('a')",
    "vars(Account)['at_many']": "content.__func__(['a'])['a']",
}


def test_bound_methods_travel():
    """Methods of an instance or of a class of `__main__`, each sent by itself as what is to be called."""
    sending = ", ".join(f"cloudpickle.dumps({sent})" for sent in SENT)
    worker = "\n".join(
        f"content = pickle.loads(payloads[{number}])\n"
        f"print({sent!r}, hasattr(content, 'stats') or hasattr(content, 'max_batch'), bool({call}))"
        for number, (sent, call) in enumerate(SENT.items())
    )
    told = script(
        CLASS + f"\naccount = Account('mine')\ncontent = {sending}\n", "payloads = content\n" + worker
    )
    assert told == [f"{sent} True True" for sent in SENT]


def test_what_cannot_travel_is_refused_aloud():
    """An option that cannot be pickled raises as it does by itself."""
    lock = threading.Lock()
    function = single_flight_ttl(ttl=60, listener=lambda event: lock)(lambda: 1)
    with pytest.raises(TypeError, match="cannot pickle"):
        cloudpickle.dumps(function)


def test_plain_pickle_refuses_local_functions_aloud():
    """Without cloudpickle a function is pickled by reference, and one that has none is refused."""
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(local_function())
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(local_function().bulk(lambda numbers, *, more=0: {}))


@single_flight_ttl(ttl=60)
def importable(symbol):
    return symbol


@importable.bulk
def importables(symbols):
    return dict.fromkeys(symbols, 1)


class Importable:
    @single_flight_ttl(ttl=60)
    @staticmethod
    def at(symbol):
        return symbol

    @single_flight_ttl(ttl=60)
    def get(self, symbol):
        return symbol


@pytest.mark.parametrize(
    "function", [importable, importables, Importable.at, Importable.get], ids=lambda f: f.__qualname__
)
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_importable_functions_travel_by_reference(function, dumps):
    """Those that a worker can import are imported, values and all, and not copied."""
    sent = dumps(function)
    assert pickle.loads(sent) is function
    assert len(sent) < 120


def test_modules_that_are_to_travel_by_value_do():
    """`cloudpickle.register_pickle_by_value` counts for decorated functions, too."""
    module = types.ModuleType("by_value_only")
    exec(
        "from singleflight import single_flight_ttl\n@single_flight_ttl(ttl=60)\ndef f(a): return a",
        vars(module),
    )
    sys.modules[module.__name__] = module
    try:
        assert len(cloudpickle.dumps(module.f)) < 100
        cloudpickle.register_pickle_by_value(module)
        told = there(module.f, "print(content(1), content(1), content.stats().calls)")
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules[module.__name__]
    assert told == ["1 1 1"]
    function = module.f
    assert pickle.loads(cloudpickle.dumps(function)) is function


def test_it_comes_home_as_itself():
    """In its own process what was pickled by value is the same function, with its values."""
    function = local_function()
    assert function(1) == 3
    loader = function.bulk(lambda numbers, *, more=0: {})
    twin = function.twin(lambda number, *, more=0: 1)
    for each in (function, loader, twin):
        assert pickle.loads(cloudpickle.dumps(each)) is each
    assert function.stats().calls == 1


def test_a_class_keeps_its_methods_when_an_instance_comes_home():
    """Unpickling where the class is alive replaces none of its decorated methods, nor their values."""
    space = {"single_flight_ttl": single_flight_ttl, "__name__": "__main__"}
    exec(CLASS, space)
    account = space["Account"]("mine")
    before = dict(vars(space["Account"]))
    account.get("a"), account.of("a"), account.at("a")
    again = pickle.loads(cloudpickle.dumps(account))
    assert type(again) is space["Account"]
    for name in ("get", "aget", "many", "of", "of_many", "at", "at_many"):
        assert vars(space["Account"])[name] is before[name], name
    assert (account.get.stats().entries, account.of.stats().entries, account.at.stats().entries) == (1, 1, 1)


def test_what_is_sent_twice_is_one_function_there():
    """Two payloads of one function have one memo in a worker, as long as it keeps the first."""
    function = local_function()
    one, other = cloudpickle.dumps(function), cloudpickle.dumps([function])
    told = there(
        (one, other),
        """
one, (other,) = map(pickle.loads, content)
print(one is other)
""",
    )
    assert told == ["True"]


def test_what_came_can_be_sent_on():
    """A worker's worker has it decorated, too."""
    program = """
import cloudpickle
sys.stdout.buffer.write(cloudpickle.dumps(content))
"""
    command = [sys.executable, "-c", WORKER + program]
    sent = cloudpickle.dumps(local_function())
    done = subprocess.run(command, input=sent, capture_output=True, timeout=40, cwd=ROOT, check=True)
    assert there(None, "print(content(2), content.stats().calls)", lambda _: done.stdout) == [
        "called 2",
        "6 1",
    ]


def test_looking_is_not_taken_for_pickling():
    """Only a pickler's question is answered with what it really is; copies are still the function itself."""
    function = local_function()
    cloudpickle.dumps(function)
    assert isinstance(function, types.FunctionType)
    assert copy.deepcopy([function, function.bulk(lambda numbers, *, more=0: {})])[0] is function
    assert SingleFlightFunction in type(function).__mro__[1:3]
    assert function.__reduce_ex__(4) == function.__reduce__() == function.__qualname__
    loader = function.bulk(lambda numbers, *, more=0: {})
    assert type(loader) is BulkLoader
    assert loader.__reduce_ex__(4) == loader.__reduce__() == loader.__qualname__
