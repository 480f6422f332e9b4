"""How keys, arguments and errors are written into messages."""

import pytest

from singleflight.common.messages import LONGEST, listed, shown


class Row:
    def __repr__(self):
        raise RuntimeError("not bound to a session")


class Endless:
    def __repr__(self):
        return repr(self)


def test_plain_keys_are_written_as_they_are():
    """What is short and can be printed is its own repr."""
    for key in ("ASML", ("acct", 1, None), frozenset({1}), 1.5, b"x", ["a", {"b": 2}]):
        assert shown(key) == repr(key)


@pytest.mark.parametrize(
    "key",
    [list(range(1_000_000)), "x" * 1_000_000, {n: n for n in range(100_000)}, 10**4000, 10**10_000],
    ids=["list", "str", "dict", "int", "int-without-digits"],
)
def test_long_keys_are_cut(key):
    """However much a key holds, its text has at most 200 characters."""
    assert len(shown(key)) <= LONGEST
    assert len(shown((key, key))) <= LONGEST


def test_a_repr_that_raises_is_named():
    """A key that cannot be printed is named by its type and by what its repr raised."""
    assert shown(Row()) == "<Row, whose repr raised RuntimeError>"
    assert shown((1, Row())) == "(1, <Row, whose repr raised RuntimeError>)"
    assert shown(Endless()) == "<Endless, whose repr raised RecursionError>"


def test_a_class_named_like_a_container_is_not_taken_for_one():
    """A user's class may be called `deque`, whatever its repr does."""
    deque = type("deque", (), {"__repr__": lambda self: "D"})
    assert shown(deque()) in {"D", "<deque, whose repr raised TypeError>"}


def test_a_list_that_holds_itself():
    """A container within itself ends."""
    endless = []
    endless.append(endless)
    assert len(shown(endless)) <= LONGEST


def test_many_keys_are_listed_with_the_middle_left_out():
    """A list of a thousand keys is a line."""
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(range(1000)).count(",") < 20
    assert "988 more" in listed(range(1000))
