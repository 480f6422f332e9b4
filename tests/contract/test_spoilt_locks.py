"""A keyed lock whose key is spoilt while it is held or awaited: it changes, or raises."""

import asyncio
import threading

import pytest

from singleflight import KeyedLocks

from ..spoilt import SPOIL, Key

PATIENCE = 20


@pytest.fixture(params=SPOIL.values(), ids=SPOIL)
def spoil(request):
    """What happens to a key."""
    return request.param


def all_free(locks):
    assert len(locks) == locks.idle
    for name in "ABC":
        with locks(Key(name), timeout=5):
            assert locks.held(Key(name))
    locks.evict_idle()
    assert len(locks) == 0


def test_it_is_free_after_the_block(spoil):
    """Whatever its key has become; other keys are not touched."""
    locks, keys = KeyedLocks(2), [Key(name) for name in "AB"]
    with locks(Key("C")):
        with locks(*keys):
            spoil(keys[0])
            assert len(locks) == 3
        assert (len(locks) - locks.idle, locks.held(Key("C"))) == (1, True)
    all_free(locks)


def test_several_at_once(spoil):
    """One after another is given up, in any order."""
    locks, blocks = KeyedLocks(2), []
    for name in "ABC":
        key = Key(name)
        blocks.append(locks(key))
        blocks[-1].__enter__()
        spoil(key)
    for number in (1, 0, 2):
        blocks[number].__exit__(None, None, None)
    all_free(locks)


def test_who_waits_goes_on(spoil):
    """The queue is served to its end, in a thread."""
    locks, key, got = KeyedLocks(2), Key("A"), threading.Event()

    def wait():
        with locks(key, timeout=PATIENCE):
            got.set()

    other = threading.Thread(target=wait, daemon=True)
    with locks(key):
        other.start()
        while not locks.waiting(key):
            assert other.is_alive()
        spoil(key)
    assert got.wait(PATIENCE)
    other.join(PATIENCE)
    all_free(locks)


def test_a_task_that_waits_goes_on(spoil):
    """And in a task."""
    locks, key = KeyedLocks(2), Key("A")

    async def wait():
        async with locks(key, timeout=PATIENCE):
            return True

    async def main():
        async with locks(key):
            waiting = asyncio.create_task(wait())
            while not locks.waiting(key):
                await asyncio.sleep(0)
            spoil(key)
        return await asyncio.wait_for(waiting, PATIENCE)

    assert asyncio.run(main())
    all_free(locks)


def test_who_gives_up_leaves_nothing(spoil):
    """A wait that is cancelled takes its place in the queue along."""
    locks, key = KeyedLocks(2), Key("A")

    async def wait():
        async with locks(Key("B"), key):
            return True

    async def main():
        async with locks(key):
            waiting = asyncio.create_task(wait())
            while not locks.waiting(key):
                await asyncio.sleep(0)
            spoil(key)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=PATIENCE)

    asyncio.run(main())
    all_free(locks)
