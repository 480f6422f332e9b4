"""What is changed in one process while it asks, and by several ways: changes count in their order."""

import threading

import pytest

from singleflight.redis.texts import CUT

from ..drivers import PATIENCE, until
from .fleets import Loads, link_of


class Held:
    """Has what would send one of these scripts wait, once, until it is let go."""

    def __init__(self, function, *scripts):
        clients = link_of(function).clients
        self._scripts, self._call_all = scripts, clients.call_all
        self.entered, self.gate = threading.Event(), threading.Event()
        clients.call_all = self._calls

    def _calls(self, calls):
        if not self.entered.is_set() and any(call.script in self._scripts for call in calls):
            self.entered.set()
            assert self.gate.wait(PATIENCE)
        return self._call_all(calls)


def in_eu(landing):
    return ["eu"]


# -- while it asks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["pending", "first_for"])
def test_what_is_cut_while_a_claim_looks_for_cuts_is_not_near(fleet, pool, which):
    """Its question reaches the server before the cut does: what it finds is of before."""
    body = Loads(lambda n: n)
    a, b = (fleet(body, tags=in_eu) for _ in range(2))
    assert a("warm") == 1
    assert b("ASML") == 2
    link = link_of(a)
    held, cuts = Held(a, CUT), []
    look = getattr(link, which)

    def looking(*args):
        seen = look(*args)
        if not cuts:
            cuts.append(pool.submit(a.invalidate_tag, "eu"))
            assert held.entered.wait(PATIENCE)
        return seen

    if which == "first_for":  # a drop of another key is to be confirmed
        link.note("drop", a._self_cache.tier, b"other", b"other")
    setattr(link, which, looking)
    assert a("ASML") == 2
    held.gate.set()
    cuts[0].result(PATIENCE)
    assert a("ASML") == 3


def test_what_is_missed_while_a_claim_looks_for_numbers_is_not_near(fleet):
    """It asks by an epoch that was the last one before messages were lost."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert a("warm") == 1
    assert b("ASML") == 2
    tier, missed = a._self_cache.tier, []
    known_numbers, tier.heard = tier.known_numbers, lambda news: missed.append(news.kind)

    def looking():
        numbers = known_numbers()
        if not missed:
            b.cache_clear()
            until(lambda: missed)
            tier.link._gap(False)
        return numbers

    tier.known_numbers = looking
    assert a("ASML") == 2
    assert a("ASML") == 3
