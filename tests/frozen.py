"""Exceptions that let nobody write their attributes, and others that are awkward to copy."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):
    code: int


@dataclasses.dataclass(frozen=True)
class FrozenArgs(Exception):
    args: tuple


class Refusing(Exception):
    def __setattr__(self, name, value):
        raise AttributeError(f"cannot assign to {name}")

    __delattr__ = None


class OwnWithTraceback(Exception):
    def with_traceback(self, traceback):
        raise RuntimeError("not to be called")


class OwnTraceback(Exception):
    @property
    def __traceback__(self):
        return None


class OwnDict(Exception):
    __slots__ = ("args",)

    def __init__(self, value):
        super().__init__(value)
        self.args = value

    @property
    def __dict__(self):
        return {}


class Built(Exception):
    def __new__(cls, *, code):
        self = super().__new__(cls)
        self.code = code
        return self

    def __init__(self, *, code):
        pass

    def __reduce__(self):
        raise TypeError("cannot be pickled")

    __copy__ = __deepcopy__ = None


class Numbered(ExceptionGroup):
    """A group whose args are more than a group takes."""

    def __new__(cls, message, errors, number):
        self = super().__new__(cls, message, errors)
        self.number = number
        return self


class Opaque(type):
    @property
    def __mro__(cls):
        raise TypeError("not to be seen")


class Uncopyable(Exception, metaclass=Opaque):
    """Of this one no copy can be made, as of some that extension modules have."""


KINDS = {
    "frozen": lambda: Frozen(503),
    "frozen, with slots": lambda: FrozenSlots(503),
    "frozen, with args of its own": lambda: FrozenArgs(("a", 1)),
    "refusing": lambda: Refusing("x"),
    "own with_traceback": lambda: OwnWithTraceback("x"),
    "own traceback": lambda: OwnTraceback("x"),
    "own dict and args": lambda: OwnDict("x"),
    "own new": lambda: Built(code=1),
    "group of frozen ones": lambda: ExceptionGroup("g", [Frozen(1), ExceptionGroup("h", [FrozenSlots(2)])]),
    "group with other args": lambda: Numbered("g", [Frozen(1)], 7),
}
CHAIN = ("__cause__", "__context__", "__suppress_context__")
FIELDS = ("args", "code", "message", "exceptions", "number", *CHAIN)
MISSING = object()


BASE = vars(BaseException)


def raised(error):
    """The error as one that was raised from another one, in the midst of a third, with a note."""
    BASE["__dict__"].__get__(error)["__notes__"] = ["a note"]
    try:
        try:
            raise LookupError("context")
        except LookupError:
            raise error from KeyError("cause")
    except type(error):
        return error


def looks(error):
    """What a caller sees of it."""
    return {name: getattr(error, name, MISSING) for name in FIELDS}


def frames(error):
    """Whether its traceback leads anywhere."""
    return BASE["__traceback__"].__get__(error) is not None
