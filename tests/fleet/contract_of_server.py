"""What the policy of the shared tier relies on: each script's replies, for the model and for a real server.

A test module derives from `ContractOfServer` and has a fixture `server` with the methods of `ModelServer`.
"""

import pytest

from singleflight.fleet.replies import (
    AGAIN,
    Absent,
    Found,
    Leased,
    Oversized,
    Passed,
    Refused,
    Renewing,
    Told,
    Waiting,
    Wake,
)

LEASE = 400  # long enough for a real server to be asked within it, short enough to wait for
LONG = 60_000


def claim(server, token, mode="read", *, version=b"1", channel="here", lease=LONG, key="k", **more):
    return server.claim(
        key, version, token, lease=lease, channel=channel, leader=f"of {channel}", mode=mode, **more
    )


def publish(server, token, envelope=b"value", *, version=b"1", fresh=LONG, life=LONG, key="k", **more):
    return server.publish(key, version, token, envelope, fresh=fresh, life=life, birth=7, **more)


def release(server, token, retries=None, *, version=b"1", lease=LONG):
    return server.release("k", version, token, retries=retries, lease=lease)


class ContractOfServer:
    """Each test uses the keys `k` and `other`, which nobody has used before."""

    @pytest.fixture(autouse=True)
    def nothing_stays_for_ever(self, server):
        """No key is without an expiry after any of the tests."""
        for channel in ("here", "there", "bus"):
            server.subscribe(channel)
            server.hear(channel)
        yield
        assert server.unlimited() == []

    # -- claims

    def test_the_first_claim_gets_the_lease(self, server):
        """With the server's time, and no retries noted."""
        answer = claim(server, b"a")
        assert isinstance(answer, Leased)
        assert answer.retries is None
        assert answer.birth > 0

    def test_the_second_waits(self, server):
        """It is told who leads and how long the lease lives."""
        claim(server, b"a", channel="there")
        answer = claim(server, b"b")
        assert isinstance(answer, Waiting)
        assert 0 < answer.left <= LONG
        assert answer.leader == "of there"

    @pytest.mark.parametrize("mode", ["read", "force", "renew"])
    def test_one_lease_at_a_time(self, server, mode):
        """Whatever the mode, a lease that lives is not given to another."""
        claim(server, b"a")
        assert not isinstance(claim(server, b"b", mode), Leased)

    def test_another_key_and_another_version_are_free(self, server):
        """A lease concerns one version of one entry."""
        claim(server, b"a")
        assert isinstance(claim(server, b"b", version=b"2"), Leased)
        assert isinstance(claim(server, b"c", key="other"), Leased)

    def test_a_lease_is_claimed_again_by_its_own_token(self, server):
        """As where the first answer was lost."""
        claim(server, b"a")
        assert isinstance(claim(server, b"a"), Leased)

    def test_a_lease_lapses(self, server):
        """Once its time is over another claim gets it, and what the first tells is refused."""
        claim(server, b"a", lease=LEASE)
        server.passes(LEASE + 1)
        assert isinstance(claim(server, b"b"), Leased)
        assert publish(server, b"a") == Refused()

    def test_a_renewed_lease_lives_on(self, server):
        """From the renewal on, for what that says."""
        claim(server, b"a", lease=LEASE)
        assert server.renew("k", b"1", b"a", lease=LONG)
        server.passes(LEASE + 1)
        assert isinstance(claim(server, b"b"), Waiting)

    def test_a_lapsed_lease_is_not_renewed(self, server):
        """Nor one of another token; nothing comes into being by that."""
        claim(server, b"a", lease=LEASE)
        assert not server.renew("k", b"1", b"b", lease=LONG)
        server.passes(LEASE + 1)
        assert not server.renew("k", b"1", b"a", lease=LONG)
        assert isinstance(claim(server, b"c"), Leased)

    def test_read_is_satisfied_by_a_stale_value(self, server):
        """Even while somebody renews it."""
        claim(server, b"a")
        publish(server, b"a", fresh=0)
        claim(server, b"b", "renew")
        found = claim(server, b"c")
        assert isinstance(found, Found)
        assert (found.envelope, found.fresh, found.birth) == (b"value", 0, 7)
        assert 0 < found.left <= LONG

    def test_a_value_ends(self, server):
        """When its life is over it is as if it had never been."""
        claim(server, b"a")
        publish(server, b"a", life=LEASE)
        server.passes(LEASE + 1)
        assert isinstance(claim(server, b"b"), Leased)

    def test_renew_wants_a_fresh_value_that_it_has_not_seen(self, server):
        """A stale value, and the one that it has, lead to the lease."""
        claim(server, b"a")
        publish(server, b"a")
        assert isinstance(claim(server, b"b", "renew", seen=6), Found)
        assert isinstance(claim(server, b"b", "renew", seen=7), Leased)
        publish(server, b"b", fresh=0)
        assert isinstance(claim(server, b"c", "renew", seen=6), Leased)

    def test_renew_does_not_wait(self, server):
        """Where somebody leads it leaves, and is not woken."""
        claim(server, b"a", channel="there")
        answer = claim(server, b"b", "renew")
        assert isinstance(answer, Renewing)
        assert answer.leader == "of there"
        assert publish(server, b"a") == Told(0)

    def test_force_takes_no_stored_value(self, server):
        """It leads, or waits."""
        claim(server, b"a")
        publish(server, b"a")
        assert isinstance(claim(server, b"b", "force"), Leased)
        assert isinstance(claim(server, b"c", "force"), Waiting)

    def test_a_value_that_is_too_large_is_not_sent(self, server):
        """Its size is told."""
        claim(server, b"a")
        publish(server, b"a", b"x" * 100)
        assert claim(server, b"b", most=99) == Oversized(100)
        assert isinstance(claim(server, b"b", most=100), Found)

    def test_a_peek_changes_nothing(self, server):
        """It finds a value or none, and takes no lease."""
        assert server.peek("k", b"1") == Absent()
        assert isinstance(claim(server, b"a"), Leased)
        publish(server, b"a")
        assert server.peek("k", b"1").envelope == b"value"
        assert server.peek("k", b"1", most=4) == Oversized(5)

    # -- how flights end

    def test_publish_stores_frees_and_wakes(self, server):
        """The waiters receive the value with its times and chain; the next claim finds it."""
        claim(server, b"a")
        chain = claim(server, b"b", channel="there").chain
        claim(server, b"c", channel="there")
        assert publish(server, b"a", fresh=LEASE) == Told(1)  # a process is woken once
        [(key, version, wake)] = server.hear("there")
        assert (key, version, wake.kind, wake.found.envelope) == ("k", b"1", "value", b"value")
        assert (wake.found.left, wake.found.fresh, wake.found.birth) == (LONG, LEASE, 7)
        assert wake.chain == chain != b""
        assert isinstance(claim(server, b"d"), Found)
        assert isinstance(claim(server, b"d", "force"), Leased)

    def test_a_long_value_does_not_travel_in_the_wake(self, server):
        """Who waits asks again, and finds it; with force as well, since this is what it waited for."""
        claim(server, b"a")
        chain = claim(server, b"b", "force").chain
        publish(server, b"a", b"x" * 100, most=99)
        assert server.hear("here") == [("k", b"1", AGAIN)]
        assert claim(server, b"b", "force", chain=chain).envelope == b"x" * 100
        assert isinstance(claim(server, b"c", "force"), Leased)

    def test_only_a_value_that_is_replaced_is_told_to_all(self, server):
        """On the bus."""
        claim(server, b"a")
        publish(server, b"a")
        assert server.hear("bus") == []
        claim(server, b"b", "force")
        publish(server, b"b")
        assert server.hear("bus") == [("new", "k")]

    def test_pass_shares_without_storing(self, server):
        """The waiters receive it, and the next claim leads."""
        claim(server, b"a")
        chain = claim(server, b"b").chain
        assert server.pass_on("k", b"1", b"a", b"failure") == Told(1)
        assert server.hear("here") == [("k", b"1", Wake("passed", Found(b"failure", 0, 0, 0), chain))]
        assert isinstance(claim(server, b"c"), Leased)

    def test_release_notes_retries_for_those_who_wait(self, server):
        """The first of them to claim leads with what is left; a flight that lands forgets it."""
        claim(server, b"a")
        claim(server, b"b")
        assert release(server, b"a", 2) == Told(1)
        assert server.hear("here") == [("k", b"1", AGAIN)]
        assert claim(server, b"b").retries == 2
        publish(server, b"b")
        assert claim(server, b"c", "force").retries is None

    def test_release_notes_nothing_where_nobody_waits(self, server):
        """The next claim starts afresh."""
        claim(server, b"a")
        assert release(server, b"a", 2) == Told(0)
        assert claim(server, b"b").retries is None

    def test_who_comes_when_the_chain_is_over_is_told_how_it_ended(self, server):
        """If it waited for any flight of it; not who asks anew, and not after the time of a lease."""
        claim(server, b"a")
        chain = claim(server, b"b").chain
        claim(server, b"c", channel="there")
        release(server, b"a", 0)
        claim(server, b"c", channel="there")  # leads now; b has not come yet
        server.pass_on("k", b"1", b"c", b"failure", lease=LEASE)
        assert claim(server, b"b", chain=chain) == Passed(b"failure")
        assert claim(server, b"b", "force", chain=chain) == Passed(b"failure")
        assert isinstance(claim(server, b"d", lease=1), Leased)
        server.passes(LEASE + 1)
        assert isinstance(claim(server, b"b", chain=chain), Leased)

    def test_a_lease_that_lapses_does_not_end_the_chain(self, server):
        """Who waited for the leader that died is told what the next one passed."""
        claim(server, b"a", lease=LEASE)
        chain = claim(server, b"b").chain
        claim(server, b"c", channel="there")
        server.passes(LEASE + 1)
        claim(server, b"c", channel="there")
        server.pass_on("k", b"1", b"c", b"failure")
        assert claim(server, b"b", chain=chain) == Passed(b"failure")

    def test_a_retry_goes_on_with_the_chain(self, server):
        """And a drop ends it: who leads after that begins another."""
        claim(server, b"a")
        chain = claim(server, b"b").chain
        release(server, b"a", 1)
        claim(server, b"b")
        assert claim(server, b"c").chain == chain
        server.drop("k")
        claim(server, b"b2")
        assert claim(server, b"c").chain != chain

    def test_a_drop_forgets_how_a_chain_ended(self, server):
        """Who waited flies again."""
        claim(server, b"a")
        chain = claim(server, b"b").chain
        server.pass_on("k", b"1", b"a", b"failure")
        server.drop("k")
        assert isinstance(claim(server, b"b", chain=chain), Leased)

    def test_chains_differ(self, server):
        """One that was not waited for does not answer for another."""
        claim(server, b"a")
        chain = claim(server, b"b").chain
        publish(server, b"a", life=1)
        server.passes(2)
        claim(server, b"c")
        assert claim(server, b"d").chain != chain
        server.pass_on("k", b"1", b"c", b"failure")
        assert isinstance(claim(server, b"b", chain=chain), Leased)

    def test_a_lease_that_lapses_leaves_the_retries(self, server):
        """A leader that dies renews no budget."""
        claim(server, b"a")
        claim(server, b"b")
        release(server, b"a", 0)
        assert claim(server, b"b", lease=LEASE).retries == 0
        server.passes(LEASE + 1)
        assert claim(server, b"c").retries == 0

    def test_noted_retries_end(self, server):
        """After the time of a lease."""
        claim(server, b"a")
        claim(server, b"b")
        release(server, b"a", 2, lease=LEASE)
        server.passes(LEASE + 1)
        assert claim(server, b"b").retries is None

    @pytest.mark.parametrize("waits", [True, False])
    def test_a_failure_is_stored_unless_somebody_waits(self, server, waits):
        """Who waits is to try again instead."""
        claim(server, b"a")
        if waits:
            claim(server, b"b")
        publish(server, b"a", b"failure", yields=True, retries=1, lease=LONG)
        assert server.hear("here") == ([("k", b"1", AGAIN)] if waits else [])
        answer = claim(server, b"b")
        assert answer.retries == 1 if waits else answer.envelope == b"failure"

    @pytest.mark.parametrize("end", ["publish", "pass", "release", "renew"])
    @pytest.mark.parametrize("why", ["another's", "lapsed", "dropped", "ended"])
    def test_a_lease_that_is_gone_changes_nothing(self, server, end, why):
        """Neither the value nor the lease of another, and nobody is woken."""
        claim(server, b"a", lease=LEASE)
        if why == "lapsed":
            server.passes(LEASE + 1)
        elif why == "dropped":
            server.drop("k")
        elif why == "ended":
            release(server, b"a")
        token = b"z" if why == "another's" else b"a"
        if why != "another's":
            claim(server, b"b")
        claim(server, b"c")
        server.hear("here")
        if end == "renew":
            assert not server.renew("k", b"1", token, lease=LONG)
        elif end == "pass":
            assert server.pass_on("k", b"1", token, b"x") == Refused()
        elif end == "release":
            assert release(server, token) == Refused()
        else:
            assert publish(server, token, b"x") == Refused()
        assert server.hear("here") == []
        assert server.peek("k", b"1") == Absent()
        assert isinstance(claim(server, b"d"), Waiting)
        assert publish(server, b"a" if why == "another's" else b"b") == Told(1)

    # -- drops

    def test_a_drop_takes_all_versions(self, server):
        """Values, leases and waiters, who ask again; the bus is told once."""
        claim(server, b"a")
        publish(server, b"a")
        claim(server, b"b", version=b"2")
        claim(server, b"c", version=b"2", channel="there")
        server.drop("k")
        assert server.hear("there") == [("k", b"2", AGAIN)]
        assert server.hear("bus") == [("drop", "k")]
        assert publish(server, b"b", version=b"2") == Refused()
        assert isinstance(claim(server, b"d"), Leased)
        assert isinstance(claim(server, b"e", version=b"2"), Leased)

    def test_a_put_is_a_drop_and_a_value(self, server):
        """Waiters of its version receive it, the others ask again, and a flight in progress is refused."""
        claim(server, b"a")
        chain = claim(server, b"b").chain
        claim(server, b"c", version=b"2")
        claim(server, b"d", version=b"2", channel="there")
        server.put("k", b"1", b"new", fresh=LEASE, life=LONG)
        [(_, _, wake)] = server.hear("here")
        assert (wake.kind, wake.found.envelope, wake.found.left) == ("value", b"new", LONG)
        assert wake.chain == chain
        assert wake.found.birth > 0
        assert server.hear("there") == [("k", b"2", AGAIN)]
        assert server.hear("bus") == [("drop", "k")]
        assert publish(server, b"a", b"old") == Refused()
        assert claim(server, b"e").envelope == b"new"

    def test_an_epoch_grows(self, server):
        """Each is told to all, and was never one before."""
        epochs = [server.raise_epoch() for _ in range(3)]
        assert epochs == sorted(set(epochs))
        assert server.numbers() == (epochs[-1], 0)
        assert server.hear("bus") == [("epoch", "function", epoch) for epoch in epochs]

    def test_cuts_are_numbered(self, server):
        """Over all tags of a function; each is told to all, and was never one before."""
        assert server.numbers() == (0, 0)
        assert server.cut_of("blue") == 0
        tags = ["blue", "red", "blue"]
        cuts = [server.cut(tag) for tag in tags]
        assert cuts == sorted(set(cuts))
        assert (server.cut_of("blue"), server.cut_of("red"), server.cut_of("green")) == (cuts[2], cuts[1], 0)
        assert server.numbers() == (0, cuts[2])
        assert server.hear("bus") == [("cut", tag, cut) for tag, cut in zip(tags, cuts, strict=True)]

    def test_numbers_are_above_those_that_are_known(self, server):
        """Also where the server has lost its own, and above its clock, where nothing is known."""
        birth = claim(server, b"a").birth
        for give in (server.raise_epoch, lambda known: server.cut("blue", known)):
            first = give(0)
            assert first >= birth
            known = first + LONG
            assert give(known) == known + 1
            assert give(first) == known + 2
            server.loses_numbers()
            assert birth <= give(0) < known
            server.loses_numbers()
            assert give(known + 2) == known + 3
