"""Edges between waits, and the cycles that they close: on hashes that are in this process."""

from collections import defaultdict
from typing import NamedTuple

import pytest

from singleflight.redis.clients import Kind, Trouble
from singleflight.redis.cycles import Edges
from singleflight.redis.scripts import Place


class Flight(NamedTuple):
    place: Place
    text: str


def flight(name):
    return Flight(Place(b"values of " + name.encode(), b"flights of " + name.encode()), f"<{name}>")


A, B, C, D = map(flight, "ABCD")


class Hashes:
    """A server that knows the commands of edges, and answers as RESP 2 or 3 has it."""

    def __init__(self, protocol):
        self.protocol, self.hashes, self.lives = protocol, defaultdict(dict), {}
        self.asked = []  # for which hashes, each time
        self.broken = set()

    def do(self, calls):
        return [self._do(*call.args) for call in calls if not call.script]

    def _do(self, name, key, *args):
        if name == "HSET":
            self.hashes[key][args[0]] = args[1]
        elif name == "PEXPIRE":
            self.lives[key] = args[0]
        elif name == "HDEL":
            del self.hashes[key][args[0]]
        else:
            assert name == "HGETALL"
            if key in self.broken:
                return Trouble(Kind.REFUSED, "WRONGTYPE")
            found = self.hashes[key]
            return found.copy() if self.protocol == 3 else [each for pair in found.items() for each in pair]
        return None

    def wait(self, target, inside, others=(), lease=5000):
        """Somebody waits for a flight, inside of these, while the others wait for him."""
        edges = Edges([*inside, *others], len(inside), target, lease)
        self.do(edges.note())
        return edges

    def look(self, edges):
        """Return the cycle that he sees."""
        looking, replies = edges.look(), None
        try:
            while True:
                calls = looking.send(replies)
                self.asked.append([call.args[1] for call in calls])
                replies = self.do(calls)
        except StopIteration as stopped:
            return stopped.value


@pytest.fixture(params=[2, 3], ids=["RESP 2", "RESP 3"])
def server(request):
    return Hashes(request.param)


def hash_of(flight):
    return flight.place.flights + b"w"


def test_an_edge_is_written_beside_the_entry(server):
    """With the lease as its life; and taken back alone."""
    one, other = server.wait(B, [A], [C], lease=4000), server.wait(D, [A], lease=6000)
    assert {key: len(fields) for key, fields in server.hashes.items()} == {hash_of(A): 2, hash_of(C): 1}
    assert server.lives == {hash_of(A): 6000, hash_of(C): 4000}
    (nonce,) = server.hashes[hash_of(C)]
    assert len(nonce) == 8
    left = {key: value for key, value in server.hashes[hash_of(A)].items() if key != nonce}
    server.do(one.forget())
    assert server.hashes == {hash_of(A): left, hash_of(C): {}}
    server.do(other.note())
    assert server.hashes[hash_of(A)] == left


def test_no_cycle(server):
    """Where what is waited for waits for nothing, or for others that do."""
    first = server.wait(B, [A])
    assert server.look(first) is None
    server.wait(C, [B])
    server.wait(D, [B])
    server.asked.clear()
    assert server.look(first) is None
    assert server.asked == [[hash_of(B)], [hash_of(C), hash_of(D)]]


def test_a_cycle_of_two(server):
    """Each sees it, and names the keys from its own flight on."""
    first, second = server.wait(B, [A]), server.wait(A, [B])
    for edges, words in ((first, ["<A>", "<B>", "<A>"]), (second, ["<B>", "<A>", "<B>"])):
        found = server.look(edges)
        assert edges.is_own(found)
        assert edges.words(found) == words
    assert server.look(first) == server.look(first)


def test_a_cycle_of_the_very_same_edges(server):
    """One that has come anew is another one."""
    first, second = server.wait(B, [A]), server.wait(A, [B])
    before = server.look(first)
    server.do(second.note())
    assert server.look(first) == before
    server.do(second.forget())
    assert server.look(first) is None
    server.wait(A, [B])
    assert server.look(first) != before
    assert first.words(server.look(first)) == first.words(before)


def test_a_cycle_of_three(server):
    """Other ways lead nowhere."""
    first = server.wait(B, [A])
    server.wait(D, [B])
    server.wait(C, [B])
    server.wait(A, [C])
    server.wait(D, [D, C])
    found = server.look(first)
    assert first.words(found) == ["<A>", "<B>", "<C>", "<A>"]
    assert [edge.of for edge in found] == [hash_of(B), hash_of(C)]
    assert [edge.target for edge in found] == [C.place.flights, A.place.flights]


def test_the_words_begin_with_the_flight_that_is_come_back_to(server):
    """Those that it is inside of stand in the order in which it entered them."""
    edges = server.wait(D, [A, B, C])
    server.wait(B, [D])
    found = server.look(edges)
    assert edges.is_own(found)
    assert edges.words(found) == ["<B>", "<C>", "<D>", "<B>"]


def test_who_is_no_part_of_it(server):
    """The flight that is come back to waits for him here: he is not inside of it."""
    edges = server.wait(D, [A], [B, C])
    server.wait(B, [D])
    found = server.look(edges)
    assert not edges.is_own(found)
    assert edges.words(found) == ["<B>", "<D>", "<B>"]
    server.wait(A, [D])
    server.hashes[hash_of(D)] = dict(reversed(server.hashes[hash_of(D)].items()))
    found = server.look(edges)
    assert edges.is_own(found)
    assert edges.words(found) == ["<A>", "<D>", "<A>"]


def test_a_cycle_of_others_is_followed_once(server):
    """No hash is asked for twice."""
    first = server.wait(B, [A])
    server.wait(C, [B])
    server.wait(B, [C])
    server.wait(D, [C])
    assert server.look(first) is None
    asked = [name for names in server.asked for name in names]
    assert asked.count(hash_of(C)) == asked.count(hash_of(D)) == 1
    assert len(server.asked) <= 4


@pytest.mark.parametrize(("links", "seen"), [(32, True), (33, False)])
def test_how_far_it_follows(server, links, seen):
    """A chain that is longer is no cycle to it."""
    chain = [flight(str(number)) for number in range(links)]
    first = server.wait(chain[0], [A])
    for before, after in zip(chain, [*chain[1:], A], strict=True):
        server.wait(after, [before])
    found = server.look(first)
    assert (found is not None) is seen
    assert found is None or len(found) == links
    assert len(server.asked) == 32


def test_what_cannot_be_read_is_no_edge(server):
    """What somebody else has written there, or what is no hash at all; the others count."""
    first = server.wait(B, [A])
    server.hashes[hash_of(B)].update(
        {b"1": b"", b"2": b"\0", b"3": b"\0\0", b"4": b"\0\x09short", b"5": b"\xff"}
    )
    assert server.look(first) is None
    assert server.asked == [[hash_of(B)]]
    server.hashes[hash_of(B)][b"6"] = b"\0\x01x"  # the shortest one that can be
    assert server.look(first) is None
    assert server.asked[1:] == [[hash_of(B)], [b"xw"]]
    server.wait(C, [B])
    server.wait(D, [B])
    server.broken.add(hash_of(C))
    server.wait(A, [D])
    assert first.words(server.look(first)) == ["<A>", "<B>", "<D>", "<A>"]


def test_any_text_can_be_sent(server):
    """What cannot be encoded, or is not UTF-8, is written in another way; an empty one is one."""
    odd = Flight(A.place, "half: \ud83d")
    first, second = server.wait(B, [A]), server.wait(odd, [B])
    assert first.words(server.look(first)) == ["<A>", "<B>", "half: ?"]
    server.do(second.forget())
    value = len(A.place.flights).to_bytes(2, "big") + A.place.flights
    server.hashes[hash_of(B)] = {b"nonce": value + b"\xff"}
    assert first.words(server.look(first))[-1] == "\N{REPLACEMENT CHARACTER}"
    server.hashes[hash_of(B)] = {b"nonce": value}
    assert first.words(server.look(first)) == ["<A>", "<B>", ""]
