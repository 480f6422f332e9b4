"""What calls give does not depend on who serves hits: the same calls, with hits in C and in Python."""

import asyncio
import inspect
import traceback
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import singleflight
from singleflight import single_flight_ttl
from singleflight.decorator import accelerate

KINDS = inspect.Parameter
EMPTY = KINDS.empty


needs_c = pytest.mark.skipif(
    not singleflight.accelerated,
    reason="NOT TESTED: the hit path in C is not built here, or it is switched off",
)


class Bad:
    """An argument whose hash raises."""

    def __init__(self, kind):
        self.kind = kind

    def __hash__(self):
        raise self.kind("no hash")

    def __eq__(self, other):
        return self is other

    def __repr__(self):
        return f"Bad({self.kind.__name__})"


class Equal:
    """One of many that are equal, and say so in Python."""

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return type(other) is Equal

    def __repr__(self):
        return "Equal()"


FINE = [0, 1, 1.0, True, "a", "b", None, (1,), Equal(), Equal()]
BAD = [[], {}, Bad(TypeError), Bad(ValueError), "fail", "no key", "bad key"]
ALL = FINE * 4 + BAD
values = st.integers(0, len(ALL) - 1).map(ALL.__getitem__)  # Hypothesis would hash them


@st.composite
def signatures(draw):
    """Parameters that C takes, and now and then some that it does not."""
    made, names, optional = [], iter("abcdefghijklmnopqr"), False
    for kind, most in ((KINDS.POSITIONAL_ONLY, 1), (KINDS.POSITIONAL_OR_KEYWORD, 2)):
        for _ in range(draw(st.integers(0, most))):
            optional = optional or draw(st.booleans())
            made.append(KINDS(next(names), kind, default=draw(values) if optional else EMPTY))
    stars = draw(st.integers(0, 9))
    if stars == 0:
        made.append(KINDS("args", KINDS.VAR_POSITIONAL))
    defaults = st.one_of(st.just(EMPTY), values)
    count = draw(st.sampled_from([0, 0, 1, 2, 12]))
    made += [KINDS(next(names), KINDS.KEYWORD_ONLY, default=draw(defaults)) for _ in range(count)]
    if stars == 1:
        made.append(KINDS("kwargs", KINDS.VAR_KEYWORD))
    return made


@st.composite
def calls(draw, parameters):
    """Arguments that mostly fit, some by place and some by name."""
    args, kwargs, by_place = [], {}, True
    for parameter in parameters:
        if parameter.kind in (KINDS.VAR_POSITIONAL, KINDS.VAR_KEYWORD):
            continue
        left_out = draw(st.booleans()) if parameter.default is not EMPTY else draw(st.integers(0, 30)) == 0
        by_place = by_place and not left_out and parameter.kind is not KINDS.KEYWORD_ONLY
        by_place = by_place and (parameter.kind is KINDS.POSITIONAL_ONLY or draw(st.booleans()))
        if by_place:
            args.append(draw(values))
        elif not left_out:
            kwargs[draw(st.sampled_from([str, Name]))(parameter.name)] = draw(values)
    slip = draw(st.integers(0, 25))
    if slip == 0:
        args.append(1)
    elif slip == 1:
        kwargs["unknown"] = 1
    elif slip == 2 and parameters and args:
        kwargs[parameters[0].name] = 1
    return args, kwargs


def Name(name):
    """Another string than the one in the function's code."""
    return "".join(list(name)) + ""


WORLDS = [
    "function",
    "method",
    "kept method",
    "plain call of a method",
    "class method",
    "static method",
    "coroutine function",
    "coroutine method",
]
STEPS = [
    "call",
    "call",
    "call",
    "call",
    "again",
    "put",
    "invalidate",
    "refresh",
    "later",
    "clear",
    "bypassed",
]

KEYED = ["all", "all", "own", "own", "parts", "parts", "names", "name", "ignore", "typed"]


@st.composite
def stories(draw):
    """A function, its options, some calls, and what is done with them one after the other."""
    parameters = draw(signatures())
    names = [p.name for p in parameters if p.kind not in (KINDS.VAR_POSITIONAL, KINDS.VAR_KEYWORD)]
    options = {"maxsize": draw(st.sampled_from([2, 16]))}
    keyed = draw(st.sampled_from(KEYED))
    if keyed == "names" and names:
        options["key"] = tuple(draw(st.lists(parts_of(names), min_size=1, unique=True)))
    elif keyed == "name" and names:
        options["key"] = draw(st.sampled_from(names))
    elif keyed == "ignore" and names:
        options["ignore"] = (draw(st.sampled_from(names)),)
    elif keyed == "typed":
        options["typed"] = True
    clock = draw(st.sampled_from(["floats", "floats", "numbers", "real", "raises"]))
    arguments = draw(st.lists(calls(parameters), min_size=1, max_size=4))
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from(STEPS), st.integers(0, len(arguments) - 1), st.integers(0, 1)),
            min_size=3,
            max_size=14,
        )
    )
    own = keyed == "own"
    if keyed == "parts" and names:
        own = draw(st.lists(parts_of(names), min_size=1, max_size=4))
    return draw(st.sampled_from(WORLDS)), parameters, options, own, clock, arguments, steps


def parts_of(names):
    """An argument, or an attribute of it, which some have."""
    attributes = st.sampled_from(["", "", "", ".real", ".real.imag"])
    return st.tuples(st.sampled_from(names), attributes).map("".join)


class Clock:
    """One that is moved on, tells floats or other numbers, and may raise."""

    def __init__(self, kind):
        self.kind, self.now, self.left = kind, 0, 7

    def __call__(self):
        if self.kind == "raises":
            self.left -= 1
            if self.left in (0, 1):
                raise (TypeError if self.left else LookupError)("no time")
        return self.now if self.kind == "numbers" else float(self.now)


class World:
    """A decorated function with hits in C or in Python, and all that it does that can be seen."""

    def __init__(self, in_c, story):
        self.kind, parameters, options, own_key, clock, self.calls, self.steps = story
        self.seen, self.ran = [], 0
        self.clock = Clock(clock)
        options = {"ttl": 4, **options}
        if clock != "real":
            options["timer"] = self.clock
        if own_key is True:
            options["key"] = self.key
        elif own_key:
            first = [KINDS("self", KINDS.POSITIONAL_ONLY)] * self.has_first()
            options["key"] = read_key(own_key, first, parameters)
        self.runner = asyncio.Runner() if "coroutine" in self.kind else None
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(accelerate, "accelerated", in_c)
            self.function, self.controls = self.made(parameters, single_flight_ttl(**options))

    def key(self, *args, **kwargs):
        self.seen.append(("key of", self.shown(args), self.shown(tuple(sorted(kwargs.items())))))
        told = [*args, *kwargs.values()]
        if any(each == "no key" for each in told if isinstance(each, str)):
            raise KeyError("no key")
        if any(each == "bad key" for each in told if isinstance(each, str)):
            return [told]
        return tuple(repr(self.shown(each)) for each in told)

    def has_first(self):
        return "method" in self.kind and self.kind != "static method"

    def made(self, parameters, decorate):
        """The function of this world: what is called, and what has the controls."""
        first = ("cls" if self.kind == "class method" else "self") if self.has_first() else ""
        self.first = first
        names = [p.name for p in parameters]
        space = {"answer": self.answer, **{f"_{p.name}": p.default for p in parameters}}
        kind = KINDS.POSITIONAL_OR_KEYWORD
        if parameters and parameters[0].kind is KINDS.POSITIONAL_ONLY:
            kind = KINDS.POSITIONAL_ONLY
        ours = [KINDS(first, kind)] if first else []
        ours += [p if p.default is EMPTY else p.replace(default=Shown(f"_{p.name}")) for p in parameters]
        told = ", ".join(names)
        start = "async def" if self.runner else "def"
        exec(f"{start} f{inspect.Signature(ours)}: return answer({told})", space)
        function = space["f"]
        function.__qualname__ = "Owner.f" if "method" in self.kind else "f"
        if "method" not in self.kind:
            function = decorate(function)
            return function, function
        wrapped = {"class method": classmethod, "static method": staticmethod}.get(self.kind, lambda f: f)
        owner = type("Owner", (), {"f": decorate(wrapped(function)), "__repr__": lambda _: "an owner"})
        self.instance = owner()
        if self.kind == "plain call of a method":
            return lambda *args, **kwargs: owner.f(self.instance, *args, **kwargs), self.instance.f
        if self.kind == "kept method":
            return self.instance.f, self.instance.f
        return lambda *args, **kwargs: self.instance.f(*args, **kwargs), self.instance.f

    def answer(self, *args):
        self.ran += 1
        self.seen.append(("ran with", self.shown(args)))
        if any(each == "fail" for each in args if isinstance(each, str)):
            raise RuntimeError("failed")
        return self.ran, self.shown(args)

    def shown(self, value):
        """The same for both builds."""
        if type(value).__name__ == "InstanceKey":
            return "the instance" if value() is not None else "an instance that is gone"
        if type(value) is tuple:
            return tuple(map(self.shown, value))
        if type(value).__name__ == "Owner" or value is type(getattr(self, "instance", None)):
            return "the owner"
        return f"{type(value).__name__} {value!r}"

    def outcome(self, do, *args, **kwargs):
        try:
            value = do(*args, **kwargs)
            if self.runner and inspect.isawaitable(value):
                value = self.runner.run(awaited(value))
        except Exception as error:
            last = traceback.format_exception(error)[-1]
            return "raised", last, type(error.__cause__).__name__, error.__suppress_context__
        return "gave", self.shown(value)

    def lived(self):
        """Everything that can be seen, step by step."""
        called = None
        for step, number, extra in self.steps:
            args, kwargs = self.calls[number]
            if step == "again" and called is not None:
                args, kwargs = called
            if step in ("call", "again"):
                called = args, kwargs
                done = self.outcome(self.function, *args, **kwargs)
            elif step == "bypassed":
                with self.controls.bypass():
                    done = self.outcome(self.function, *args, **kwargs)
            elif step == "put":
                done = self.outcome(self.controls.put, "put", *args, **kwargs)
            elif step in ("invalidate", "refresh"):
                done = self.outcome(getattr(self.controls, step), *args, **kwargs)
            elif step == "clear":
                done = self.outcome(self.controls.cache_clear)
            else:
                self.clock.now += 2 * (1 + extra)  # up to the very moment, too
                done = "later"
            self.seen.append((step, done))
        keys, self.clock.kind = [], "floats"
        self.controls.invalidate_where(lambda key: keys.append(repr(self.shown(key))))
        stats = self.controls.stats()
        self.seen += [sorted(keys), stats]
        return self.seen, stats.hits

    def end(self):
        if self.runner:
            self.runner.close()


def read_key(parts, first, parameters):
    """A key function that does nothing but return arguments and attributes: C knows it by its code."""
    plain = [p.replace(default=EMPTY) for p in parameters]
    returned = parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
    return eval(f"lambda {str(inspect.Signature([*first, *plain]))[1:-1]}: {returned}")


class Shown(str):
    """A default, as the text of a signature names it."""

    __slots__ = ()
    __repr__ = str.__str__


async def awaited(value):
    return await value


def alike(story):
    with ExitStack() as ends:
        worlds = [World(in_c, story) for in_c in (True, False)]
        for world in worlds:
            ends.callback(world.end)
        (ours, hits), (theirs, _) = [world.lived() for world in worlds]
        assert ours == theirs
    return hits


@needs_c
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stories())
def test_calls_are_the_same_in_both_builds(story):
    """Values, errors with the last line of their traceback, keys, how often they are asked, and counts."""
    event(f"{story[0]}, hits: {alike(story) > 0}")


@needs_c
@pytest.mark.long
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stories())
def test_calls_are_the_same_in_both_builds_for_long(story):
    """The same for many more functions and calls."""
    alike(story)
