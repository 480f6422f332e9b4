"""What is called how on the server."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight.fleet.keybytes import key_bytes
from singleflight.fleet.names import checked_prefix, digest, entry_name, function_part

KEY = key_bytes(("acct-1", "ASML"))


@settings(deadline=None)
@given(st.text() | st.text("ab{}:*?[]\\ \n", max_size=200))
def test_no_text_breaks_a_name(name):
    """Whatever a function is called: one pair of braces, no pattern, no other prefix, at most 200 bytes."""
    whole = entry_name("sf", name, KEY)
    assert re.fullmatch(r"sf:\{[A-Za-z0-9_.+-]+:[0-9a-f]{32}\}", whole)
    assert len(whole) < 200


@settings(deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_two_functions_have_two_names(first, second):
    """Also those of which only the harmless letters are shown, or that are too long."""
    assert (function_part(first) == function_part(second)) is (first == second)
    assert (digest(first, KEY) == digest(second, KEY)) is (first == second)


def test_a_digest_is_of_all_three():
    """Name, key and epoch; where one ends and the next begins is no matter of chance."""
    keys = [b"", b"a", b"b", b"1:a"]
    made = {
        digest(name, key, epoch) for name in ("", "a", "ab", "1:a") for key in keys for epoch in (0, 1, 11)
    }
    assert len(made) == 48
    assert {len(each) for each in made} == {16}


def test_a_digest_stays_what_it_is():
    """Another version of the library finds what this one stored."""
    assert digest("shop.price", b"key").hex() == "c34282f2ed1c6411d8033386f62c118c"
    assert entry_name("sf", "shop.price", KEY) == "sf:{shop.price:a8accdbbb00d76a679968457dc6481dc}"


@pytest.mark.parametrize("prefix", ["sf", "team-1:prod.eu_2"])
def test_prefixes(prefix):
    """Letters that mean nothing to a pattern or a hash tag."""
    assert checked_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix", ["", "a{b", "a}b", "a*", "a?", "[a]", "a b", "\u00e9", "a\n", "a" * 65, None, b"sf", 1]
)
def test_other_prefixes(prefix):
    """The error names the option."""
    with pytest.raises((TypeError, ValueError), match=r"^prefix: expected "):
        checked_prefix(prefix)
