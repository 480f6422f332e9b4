"""What other processes are told of an exception."""

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight import SingleFlightError
from singleflight.fleet.failures import checked_errors, failure_bytes, failure_from
from singleflight.fleet.refusals import RemoteFailure, Unreadable


class BrokerError(Exception):
    """Nothing but its arguments."""


class Coded(BrokerError):
    """Its arguments are another class's text and a code; it can be made of them."""

    def __init__(self, text, code=0):
        super().__init__(text, code)
        self.code = code


class Wordy(BrokerError):
    """Its `args` are not what it was made of."""

    def __init__(self, code):
        super().__init__(f"code {code}")


class Mute(BrokerError):
    def __str__(self):
        raise RuntimeError


class Refusing(BrokerError):
    open = True

    def __init__(self, *args):
        if not self.open:
            raise RuntimeError
        super().__init__(*args)


def sent(error, errors=()):
    return failure_from(failure_bytes(error, "web-3:4711", errors), errors)


def with_attribute():
    error = BrokerError("a")
    error.account = "acct-1"
    return error


@settings(deadline=None)
@given(st.text(max_size=50), st.text(max_size=20))
def test_any_text_arrives(text, process):
    """The type's name, the text and the process; also texts that are no Unicode."""
    failure = failure_from(failure_bytes(BrokerError(text), process))
    assert type(failure) is RemoteFailure
    assert (failure.type_name, failure.message, failure.process) == (
        f"{__name__}.BrokerError",
        text,
        process,
    )
    assert failure.__cause__ is None
    assert text in str(failure)


def test_a_long_text_is_cut():
    """At 2000 characters."""
    assert sent(BrokerError("a" * 5000)).message == "a" * 1997 + "..."
    assert sent(BrokerError("a" * 2000)).message == "a" * 2000


def test_a_text_that_raises():
    """The rest arrives."""
    assert sent(Mute("a")).message == "<its text raised RuntimeError>"


@pytest.mark.parametrize(
    "error", [BrokerError(), BrokerError("a", 1, None, 1.5, True), Coded("a", 7)], ids=repr
)
def test_classes_that_are_named_are_made_anew(error):
    """With the same arguments and attributes."""
    error.add_note("a note stays where it is")
    again = sent(error, (BrokerError, Coded))
    assert type(again) is type(error)
    assert again.args == error.args
    assert not hasattr(again, "__notes__")


@pytest.mark.parametrize(
    "error",
    [
        *(
            BrokerError(["a"]),
            BrokerError(b"a"),
            BrokerError(("a",)),
            BrokerError("a" * 3000),
            BrokerError(10**5000),
        ),
        *(Wordy(1), with_attribute(), OSError(2, "no such file", "name"), KeyError("a"), Mute("a")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_others_are_remote_failures(error):
    """A class that is not named, one that is more than its arguments, and arguments that are not plain."""
    assert type(sent(error, (BrokerError, Wordy, OSError, Mute))) is RemoteFailure


def test_a_class_that_does_not_take_them_here():
    """Another version of the class: the caller gets the remote failure, and no error of the class's."""
    payload = failure_bytes(Refusing("a"), "p", (Refusing,))
    Refusing.open = False
    try:
        assert type(failure_from(payload, (Refusing,))) is RemoteFailure
    finally:
        Refusing.open = True
    assert type(failure_from(payload, ())) is RemoteFailure


def test_the_name_alone_makes_no_class():
    """Bytes that name a class which the user did not, or arguments that are no list of plain ones."""
    record = {"type": "builtins.SystemExit", "message": "a", "process": "p", "args": [1]}
    assert type(failure_from(json.dumps(record).encode(), (BrokerError,))) is RemoteFailure
    for args in (5, "a", {"a": 1}, [[1]], [{}]):
        payload = json.dumps({**record, "type": f"{__name__}.BrokerError", "args": args}).encode()
        assert type(failure_from(payload, (BrokerError,))) is RemoteFailure


@settings(deadline=None)
@given(
    st.binary(max_size=40)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_foreign_bytes(payload):
    """They are unreadable, and nothing else is raised."""
    with pytest.raises(Unreadable, match="payload"):
        failure_from(payload, (BrokerError,))


@pytest.mark.parametrize(
    "payload", [b"[" * 100_000, b'{"type": 1, "message": "a", "process": "p"}', b"1" * 5000]
)
def test_other_foreign_bytes(payload):
    """Nested without end, of other types, numbers without end."""
    with pytest.raises(Unreadable, match="payload"):
        failure_from(payload)


def test_a_remote_failure_is_one_of_ours():
    """It can be copied and pickled like any exception."""
    failure = sent(ValueError("no"))
    assert isinstance(failure, SingleFlightError)
    assert str(failure) == "builtins.ValueError: no (in process web-3:4711)"
    for again in (copy.copy(failure), pickle.loads(pickle.dumps(failure))):
        assert (again.args, again.message) == (failure.args, "no")


def test_errors_are_checked():
    """One class or several; classes of exceptions that another process can find."""
    assert checked_errors(BrokerError) == (BrokerError,)
    assert checked_errors((BrokerError, Coded)) == (BrokerError, Coded)
    for bad in (int, "BrokerError", (BrokerError, 1), KeyboardInterrupt, type("Local", (Exception,), {})):
        with pytest.raises(TypeError, match=r"^errors: "):
            checked_errors(bad)
