"""Exceptions that let nobody write their attributes, and copies that lead to no frames."""

import gc
import weakref

import pytest

from singleflight.core.outcome import bare_copy_of, copy_of, raise_shared

from ..frozen import BASE, KINDS, Frozen, Uncopyable, frames, looks, raised


@pytest.fixture(params=KINDS)
def error(request):
    return raised(KINDS[request.param]())


def test_a_copy_is_faithful(error):
    """Type, args, attributes, cause, context and notes are the same; the original keeps its traceback."""
    copy = copy_of(error, None)
    assert copy is not error
    assert type(copy) is type(error)
    assert looks(copy) == looks(error)
    assert BASE["__dict__"].__get__(copy)["__notes__"] == ["a note"]
    assert (frames(copy), frames(error)) == (False, True)


def test_a_shared_error_is_raised_as_itself(error):
    """Also by a caller who handles another one: with its own context, not with what that caller handles."""
    with pytest.raises(type(error)) as caught:
        try:
            raise OSError("something else")
        except OSError:
            raise_shared(error, None)
    assert caught.value is not error
    assert looks(caught.value) == looks(error)


def test_a_bare_copy_is_faithful(error):
    """The same type and text, whose cause and context are copies too, without a traceback anywhere."""
    copy = bare_copy_of(error)
    assert copy is not error
    assert (type(copy), copy.args) == (type(error), error.args) or isinstance(error, ExceptionGroup)
    for name in ("__cause__", "__context__"):
        linked, original = getattr(copy, name), getattr(error, name)
        assert (type(linked), linked.args) == (type(original), original.args)
        assert linked is not original
        assert not frames(linked)
    assert frames(error)
    assert frames(error.__context__)
    assert not frames(copy)


@pytest.mark.parametrize("suppress", [True, False])
def test_bare_copies_refer_to_each_other_as_the_originals_do(suppress):
    """Cycles through contexts, groups and their members come out as cycles, each exception copied once."""
    one, two = raised(ValueError("one")), raised(KeyError("two"))
    group = raised(ExceptionGroup("outer", [one, ExceptionGroup("inner", [two, one])]))
    one.__context__, two.__cause__ = group, one
    group.__suppress_context__ = suppress
    copy = bare_copy_of(group)
    first, inner = copy.exceptions
    assert inner.exceptions[1] is first
    assert (first.__context__, inner.exceptions[0].__cause__) == (copy, first)
    assert copy.__suppress_context__ is suppress
    assert (first is one, inner is group.exceptions[1], inner.exceptions[0] is two) == (False, False, False)
    assert (copy.args, group.args) == (("outer", [first, inner]), ("outer", [one, group.exceptions[1]]))
    assert [frames(each) for each in (copy, first, inner, inner.exceptions[0])] == [False] * 4
    assert [frames(each) for each in (group, one, two)] == [True] * 3


class Wrapping(Exception):
    __slots__ = ("inner", "unset")


def test_what_an_exception_holds_in_args_and_attributes_is_copied_too():
    """As requests and urllib keep what they wrap; the same exception there is the same copy."""
    reason = raised(OSError("refused"))
    error = raised(Wrapping(reason, "x"))
    error.inner = reason
    error.reason, error.tries, error.codes = reason, (reason, 1), [1]
    copy = bare_copy_of(error)
    assert (copy.tries, copy.codes) == ((copy.inner, 1), [1])
    assert copy.codes is error.codes
    assert copy.inner is copy.reason is copy.args[0] is not reason
    assert (copy.args[0].args, copy.args[1]) == (("refused",), "x")
    assert not frames(copy.inner)
    assert error.inner is error.reason is error.args[0] is reason
    assert frames(reason)


@pytest.mark.parametrize("place", ["inner", "reason"])
@pytest.mark.parametrize("kind", [lambda error: error, lambda error: [error], lambda error: ("x", error)])
def test_what_an_exception_refers_to_in_one_place_alone_is_copied_too(place, kind):
    """In a slot or an attribute, by itself or in a list or tuple."""
    error, reason = raised(Wrapping("x")), raised(OSError("refused"))
    setattr(error, place, kind(reason))
    copy = bare_copy_of(error)
    held = getattr(copy, place)
    assert type(held) is type(kind(reason))
    copied = held if type(held) is OSError else held[-1]
    assert (type(copied), copied.args, frames(copied)) == (OSError, ("refused",), False)
    assert (copied is reason, frames(reason)) == (False, True)


class SlottedGroup(ExceptionGroup):
    __slots__ = ("place",)


@pytest.mark.parametrize("copy_of", [lambda error: copy_of(error, None), bare_copy_of])
def test_a_group_keeps_its_slots(copy_of):
    """Whatever becomes of its members."""
    error = raised(SlottedGroup("g", [raised(ValueError(1))]))
    error.place = "here"
    copy = copy_of(error)
    assert copy is not error
    assert copy.place == "here"


def test_a_long_chain_is_copied():
    """Longer than the stack is deep."""
    error = ValueError(0)
    for number in range(1, 5000):
        later = ValueError(number)
        later.__context__, error = error, later
    group = ValueError("deepest")
    for _ in range(200):
        group = ExceptionGroup("g", [group])
    error.__cause__ = group
    copy, length = bare_copy_of(error), 0
    inner = copy.__cause__
    while isinstance(inner, ExceptionGroup):
        inner = inner.exceptions[0]
    assert inner.args == ("deepest",)
    while copy is not None:
        copy, length = copy.__context__, length + 1
    assert length == 5000


def test_what_cannot_be_copied_is_shared_and_keeps_its_context():
    """Whoever is told it while handling something else leaves no trace of that on it."""
    error = Uncopyable("x")
    with pytest.raises(Uncopyable) as caught:
        try:
            raise OSError("something else")
        except OSError:
            raise_shared(error, None)
    assert caught.value is error
    assert error.__context__ is None


def test_a_cause_that_cannot_be_copied_is_shared():
    """With its traceback; all others are copied."""
    error = ValueError("x")
    error.__cause__, error.__context__ = raised(Uncopyable("cause")), raised(KeyError("context"))
    copy = bare_copy_of(error)
    assert copy is not error
    assert copy.__cause__ is error.__cause__
    assert frames(copy.__cause__)
    assert (type(copy.__context__), frames(copy.__context__)) == (KeyError, False)
    alone = raised(Uncopyable("alone"))
    assert bare_copy_of(alone) is alone
    assert frames(alone)


def test_a_member_that_cannot_be_copied_is_shared():
    """With its traceback; the group and its other members are copied."""
    members = [raised(Uncopyable("member")), raised(KeyError("member"))]
    group = raised(ExceptionGroup("g", members))
    copy = bare_copy_of(group)
    assert copy is not group
    assert copy.exceptions[0] is members[0]
    assert (type(copy.exceptions[1]), copy.exceptions[1] is members[1]) == (KeyError, False)
    assert [frames(each) for each in (copy, *copy.exceptions)] == [False, True, False]
    assert [frames(each) for each in (group, *members)] == [True] * 3


def test_a_member_that_the_args_do_not_have_is_copied_with_all_that_it_refers_to():
    """Whatever a class has made of the args."""
    group = raised(ExceptionGroup("g", [raised(ValueError("member"))]))
    group.args = ("g",)
    (member,) = bare_copy_of(group).exceptions
    assert member is not group.exceptions[0]
    assert [frames(each) for each in (member, member.__cause__, member.__context__)] == [False] * 3
    assert frames(group.exceptions[0].__context__)


class Local:
    pass


def test_a_bare_copy_keeps_no_local_alive():
    """Of any function that the exception, its cause, its context or a member has passed through."""

    def fail(error):
        local = Local()
        watched.append(weakref.ref(local))
        raise error

    def caught(error):
        try:
            fail(error)
        except Exception as error:
            return error

    watched = []
    error = caught(ExceptionGroup("g", [caught(ValueError("member")), caught(Frozen(1))]))
    error.__cause__, error.__context__ = caught(KeyError("cause")), caught(KeyError("context"))
    error.inner = caught(OSError(5))
    copy = bare_copy_of(error)
    assert all(local() is not None for local in watched)
    del error
    gc.collect()
    assert [local() for local in watched] == [None] * 6
    assert copy.inner.args == (5,)
