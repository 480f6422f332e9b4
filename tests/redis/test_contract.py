"""What the policy relies on of the scripts holds for a real server, as it does for the model."""

import time

import pytest

from singleflight.fleet.claims import Publish, Release
from singleflight.fleet.replies import Absent
from singleflight.redis import scripts
from singleflight.redis.clients import Clients

from ..fleet.contract_of_server import ContractOfServer
from ..fleet.model_server import LEASE, WAKE_LIMIT

FUNCTION, SENDER = b"f" * 16, b"s" * 8
BUS = b"bus"


def entry(key):
    return scripts.place(f"sf:{{f:{key}}}")


def head(name, function=FUNCTION):
    return scripts.news_head(function, name.encode().ljust(16, b"\0"), SENDER)


class RealServer:
    """The scripts, in the words of the model."""

    def __init__(self, url, direct):
        self.clients = Clients(url, timeout=5.0)
        self.direct = direct
        self.listening = {}

    def close(self):
        for pubsub in self.listening.values():
            pubsub.close()
        self.clients.close()

    def passes(self, milliseconds):
        """The one clock that counts is the server's, which cannot be moved."""
        time.sleep(milliseconds / 1000 + 0.002)

    def subscribe(self, channel):
        pubsub = self.direct.pubsub()
        pubsub.subscribe(channel)
        assert pubsub.get_message(timeout=20)["type"] == "subscribe"
        self.listening[channel] = pubsub

    def hear(self, channel):
        """What came before a message of ours."""
        pubsub, heard = self.listening[channel], []
        self.direct.publish(channel, b"that is all")
        while (message := pubsub.get_message(timeout=20))["data"] != b"that is all":
            heard.append(self._read(channel, message["data"]))
        return heard

    def _read(self, channel, data):
        if channel == "bus":
            news = scripts.news_of(data)
            assert (news.function, news.sender) == (FUNCTION, SENDER)
            subject = news.key.rstrip(b"\0").decode() or "function"
            numbered = news.kind in ("epoch", "cut")
            return (news.kind, subject, news.number) if numbered else (news.kind, subject)
        name, wake = scripts.wake_of(data)
        for key in ("k", "other"):
            for version in (b"1", b"2"):
                if entry(key).waits(version) == name:
                    return key, version, wake
        raise AssertionError(name)

    def unlimited(self):
        return [key for key in self.direct.scan_iter() if self.direct.pttl(key) == -1]

    def claim(self, key, version, token, *, mode="read", **options):
        options = {"leader": "", "most": 1 << 20, **options, "channel": options["channel"].encode()}
        return scripts.claimed(self.clients.call(scripts.claim(entry(key), version, token, mode, **options)))

    def peek(self, key, version, **options):
        return self.claim(key, version, b"any", lease=0, channel="any", mode="peek", **options)

    def publish(self, key, version, token, envelope, *, fresh, life, yields=False, retries=None, **options):
        what = Publish(envelope, fresh, life, Release(retries) if yields else None)
        options = {"lease": LEASE, "bus": BUS, "head": head(key), **options}
        return scripts.told(self.clients.call(scripts.publish(entry(key), version, token, what, **options)))

    def pass_on(self, key, version, token, envelope, *, lease=LEASE):
        call = scripts.pass_on(entry(key), version, token, envelope, lease=lease)
        return scripts.told(self.clients.call(call))

    def release(self, key, version, token, *, retries, lease):
        call = scripts.release(entry(key), version, token, Release(retries), lease=lease)
        return scripts.told(self.clients.call(call))

    def renew(self, key, version, token, *, lease):
        return self.clients.call(scripts.renew(entry(key), version, token, lease=lease)) > 0

    def drop(self, key):
        return self.clients.call(scripts.drop(entry(key), bus=BUS, head=head(key)))

    def put(self, key, version, envelope, *, fresh, life, most=WAKE_LIMIT):
        times = {"fresh": fresh, "life": life, "most": most}
        return self.clients.call(scripts.put(entry(key), version, envelope, bus=BUS, head=head(key), **times))

    def raise_epoch(self, known=0):
        key = scripts.epoch_key("sf", FUNCTION)
        return self.clients.call(scripts.raise_epoch(key, known=known, life=60_000, bus=BUS, head=head("")))

    def cut(self, tag, known=0):
        last, key = scripts.last_cut_key("sf", FUNCTION), scripts.cut_key("sf", tag.encode())
        call = scripts.cut(last, key, known=known, life=60_000, bus=BUS, head=head(tag))
        return self.clients.call(call)

    def numbers(self):
        keys = scripts.epoch_key("sf", FUNCTION), scripts.last_cut_key("sf", FUNCTION)
        return scripts.numbers(self.clients.call(scripts.command("MGET", *keys)))

    def cut_of(self, tag):
        [found] = self.clients.call(scripts.command("MGET", scripts.cut_key("sf", tag.encode())))
        return scripts.number(found)

    def loses_numbers(self):
        self.direct.delete(scripts.epoch_key("sf", FUNCTION), scripts.last_cut_key("sf", FUNCTION))


class TestRealServer(ContractOfServer):
    """Each script is run by the server."""

    @pytest.fixture
    def server(self, url, direct):
        server = RealServer(url, direct)
        yield server
        server.close()

    def test_a_peek_of_nothing_writes_nothing(self, server):
        assert server.peek("k", b"1") == Absent()
        assert server.direct.dbsize() == 0
