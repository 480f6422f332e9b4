"""stampede: what it releases, what it counts, what it tells, and that it never hangs."""

import asyncio
import contextvars
import functools
import inspect
import itertools
import threading

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import FakeClock, stampede


def double(number, times=2):
    return number * times


async def adouble(number, times=2):
    return number * times


def run(fn, *args, **kwargs):
    """Its Stampede, whichever colour the function has."""
    result = stampede(fn, *args, **kwargs)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


@pytest.fixture(params=["threads", "tasks"])
def body(request):
    """A function that returns a new object each time, as a plain or as a coroutine function."""

    def plain(key="A"):
        return object()

    async def coroutine(key="A"):
        return object()

    return plain if request.param == "threads" else coroutine


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_one_call_for_all(body, n):
    """However many callers, a decorated function runs once; every caller has an outcome, in order."""
    fetch = single_flight_ttl(ttl=60)(body)
    result = run(fetch, n, args=("A",))
    assert result.calls == 1
    assert len({id(outcome) for outcome in result.outcomes}) == 1
    assert len(result.outcomes) == len(result.values) == n
    assert [caller.number for caller in result.callers] == list(range(n))
    assert all(caller.waited >= 0 for caller in result.callers)
    assert result.errors == []
    assert run(fetch, n).calls == 0  # all of them hits


def test_callers_are_inside_together():
    """They are released together: nobody calls before all are there, and all may be inside at once."""
    inside = threading.Barrier(30)
    result = stampede(lambda: inside.wait(10), 30, counting=lambda: 0)
    assert sorted(result.values) == list(range(30))


def test_tasks_are_all_there_before_one_calls():
    """The tasks of a stampede have begun when the first of them calls."""
    waiting = []

    async def count():
        callers = [task for task in asyncio.all_tasks() if task.get_name().startswith("stampede-")]
        states = [inspect.getcoroutinestate(caller.get_coro()) for caller in callers]
        waiting.append(states.count(inspect.CORO_SUSPENDED))

    asyncio.run(stampede(count, 30))
    assert waiting[0] == 29


@pytest.mark.parametrize("fn", [double, adouble])
def test_arguments(fn):
    """args and kwargs are those of every call; a partial has its own."""
    assert run(fn, 3, args=(2,), kwargs={"times": 5}).outcomes == [10] * 3
    assert run(functools.partial(fn, 3), 2).outcomes == [6] * 2


def test_within_a_running_loop():
    """In a task a coroutine function's stampede is awaited, and a plain one's is called in a thread."""

    @single_flight_ttl(ttl=60)
    async def afetch():
        return 1

    @afetch.twin
    def fetch():
        return 1

    async def main():
        one, other = await asyncio.gather(stampede(afetch, 5), asyncio.to_thread(stampede, fetch, 5))
        assert one.outcomes == other.outcomes == [1] * 5
        assert afetch.stats().calls == 1

    asyncio.run(main())


def test_exceptions_are_outcomes(body):
    """Values and exceptions stand side by side; aborts are outcomes too; raise_first raises the first."""
    numbers, lock = itertools.count(), threading.Lock()
    kinds = [ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError]

    def step():
        with lock:
            number = next(numbers)
        if number < 4:
            raise kinds[number]("no")
        return ValueError("a value")

    async def astep():
        return step()

    fn = astep if inspect.iscoroutinefunction(body) else step
    result = run(fn, 6)
    assert {type(error) for error in result.errors} == set(kinds)
    assert [str(value) for value in result.values] == ["a value"] * 2
    assert len(result.outcomes) == 6
    with pytest.raises(type(result.errors[0])):
        result.raise_first()
    assert run(double if fn is step else adouble, 1, args=(1,)).raise_first() is None


class TestCounting:
    """`calls` is a number that is known, or an error that says why it is not."""

    @staticmethod
    @functools.cache
    def account():
        class Account:
            @single_flight_ttl(ttl=0)
            def price(self, symbol="A"):
                return symbol

            def plain(self):
                return self.price()

        return Account()

    @pytest.mark.parametrize("how", ["bound", "partial", "wrapped", "unbound", "counting"])
    def test_what_is_around_a_decorated_function(self, how):
        """A bound method, a partial and a wrapper count the function below; `counting` names it."""
        account, seen = self.account(), itertools.count()
        bound = account.price
        fn = {
            "bound": bound,
            "partial": functools.partial(functools.partial(bound, "A")),
            "wrapped": functools.wraps(bound)(lambda symbol="A": bound(symbol)),
            "unbound": functools.partial(type(account).price, account),
            "counting": lambda: (next(seen), bound("B"))[1],
        }[how]
        before = bound.stats().calls
        result = stampede(fn, 5, counting=bound if how == "counting" else None)
        assert result.calls == bound.stats().calls - before
        assert 1 <= result.calls <= 5

    def test_refresh_is_counted(self):
        """A control that calls the function counts as it."""

        @single_flight_ttl(ttl=60)
        def fetch():
            return 1

        assert stampede(fetch.refresh, 1).calls == 1

    def test_what_something_calls_is_counted(self):
        """A lambda, or a method, that calls decorated functions: what those run, twins once."""
        fetch, other = single_flight_ttl(ttl=60)(double), single_flight_ttl(ttl=60)(double)
        other.twin(adouble)
        assert stampede(lambda: fetch(1) + other(1), 5).calls == 2
        assert stampede(lambda: fetch(1), 5).calls == 0
        assert stampede(self.account().plain, 1).calls == 1

    @pytest.mark.parametrize("fn", [lambda: double(1), functools.partial(double, 1)])
    def test_a_function_that_calls_none_is_counted_itself(self, fn):
        """So many callers, so many runs."""
        assert stampede(fn, 3).calls == 3

    def test_what_cannot_be_known_is_not_told(self):
        """Something that may keep its values in another way: asking for the count says what to pass."""
        result = stampede(functools.lru_cache(lambda: double(1)), 2)
        with pytest.raises(LookupError, match="counting="):
            _ = result.calls
        assert "calls not counted" in str(result)
        assert len(result.values) == 2

    def test_a_function_that_says_how_many(self):
        """`counting` may be any function that returns an int."""
        ran = []
        cached = functools.lru_cache(lambda: ran.append(1))
        cached()
        assert stampede(cached, 5, counting=lambda: len(ran)).calls == 0
        assert stampede(lambda: ran.append(1), 5, counting=lambda: len(ran)).calls == 5

    def test_counts_that_are_switched_off(self):
        """In a bypass nothing is counted, so nothing is told, and no wrong 0."""

        @single_flight_ttl(ttl=60)
        def fetch():
            return 1

        with fetch.bypass():
            for result in (stampede(fetch, 3), stampede(lambda: fetch(), 3, counting=fetch)):
                assert result.outcomes == [1] * 3
                with pytest.raises(LookupError, match="bypass"):
                    _ = result.calls

    def test_counts_that_are_set_back(self):
        """cache_clear meanwhile: the difference says nothing."""

        fetch = single_flight_ttl(ttl=0)(lambda: 1)
        fetch()
        with pytest.raises(LookupError, match="set back"):
            _ = stampede(lambda: fetch.cache_clear(), 1, counting=fetch).calls

    def test_a_coroutine_is_counted_from_when_it_runs(self):
        """What ran between making the coroutine and awaiting it is not the stampede's."""
        fetch = single_flight_ttl(ttl=0)(adouble)

        async def main():
            later = stampede(fetch, 4, args=(1,))
            await fetch(1)
            return await later

        assert asyncio.run(main()).calls == 1


def test_the_table():
    """One line for each caller, in order, with what it got; short, and the middle of many left out."""

    def fetch():
        number = int(threading.current_thread().name.removeprefix("stampede-"))
        if number % 2:
            raise ValueError("one\ntwo")
        return "x" * 500

    head, columns, *rows = str(stampede(fetch, 4)).splitlines()
    assert head.startswith("4 callers of fetch: 4 calls, 2 values, 2 errors, in 0.")
    assert columns.split() == ["caller", "waited", "got"]
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1].endswith("  raised ValueError('one\\ntwo')")
    assert all(len(row) < 100 for row in rows)
    many = stampede(fetch, 100)
    assert len(str(many).splitlines()) == 23
    assert "(80 more)" in str(many)
    assert str(many).splitlines()[-1].split()[0] == "99"
    assert repr(many).startswith("<Stampede: 100 callers of fetch: ")
    assert "\n" not in repr(many)


def test_the_context_is_the_callers():
    """Threads and tasks see the context variables of who called stampede, each in a copy."""
    user = contextvars.ContextVar("user", default="nobody")

    def ask():
        found = user.get()
        user.set("somebody else")
        return found

    async def aask():
        return ask()

    user.set("Ann")
    assert run(ask, 3).outcomes == run(aask, 3).outcomes == ["Ann"] * 3
    assert user.get() == "Ann"


class TestHanging:
    """A stampede ends, whatever its callers do."""

    def test_threads(self, gate):
        """Those that hang are named, with where the first of them is."""
        numbers, lock = itertools.count(), threading.Lock()

        def sometimes():
            with lock:
                number = next(numbers)
            if number < 2:
                gate.pass_()

        with pytest.raises(TimeoutError, match=r"after 1 s, 2 of the 5 callers hang: \d, \d") as told:
            stampede(sometimes, 5, timeout=1)
        assert "in sometimes" in str(told.value)

    def test_tasks(self):
        """They are cancelled as well."""
        ended = []

        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        async def main():
            with pytest.raises(TimeoutError, match="3 of the 3 callers hang: 0, 1, 2") as told:
                await stampede(wait, 3, timeout=0.5)
            assert len(ended) == 3
            assert len(asyncio.all_tasks()) == 1
            assert "in wait" in str(told.value)

        asyncio.run(main())

    def test_followers_of_a_leader_that_hangs(self, gate):
        """All of a decorated function's callers hang with it."""
        fetch = single_flight_ttl(ttl=60)(gate.pass_)
        with pytest.raises(TimeoutError, match=r"30 of the 30 callers hang: 0, 1, .*19, \.\.\."):
            stampede(fetch, 30, timeout=0.2)

    def test_a_cancelled_stampede(self):
        """Its tasks are cancelled with it."""
        begun, ended = asyncio.Event(), []

        async def wait():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        async def main():
            task = asyncio.create_task(stampede(wait, 3))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(ended) == 3

        asyncio.run(main())

    def test_threads_that_cannot_be_started(self, monkeypatch):
        """Those that were started go without calling, and the error is raised."""
        called, begun, start = [], [], threading.Thread.start

        def refuse(thread):
            if len(begun) == 3:
                raise RuntimeError("can't start new thread")
            begun.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            stampede(lambda: called.append(1), 5)
        for thread in begun:
            thread.join(10)
            assert not thread.is_alive()
        assert called == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"n": True}, TypeError),
        ({"n": 2.0}, TypeError),
        ({"n": "10"}, TypeError),
        ({"n": 0}, ValueError),
        ({"n": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": None}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"args": "ASML"}, TypeError),
        ({"args": 5}, TypeError),
        ({"kwargs": 5}, TypeError),
        ({"kwargs": "times"}, TypeError),
        ({"counting": 3}, TypeError),
        ({"counting": lambda: "3"}, TypeError),
        ({"fn": 3}, TypeError),
    ],
)
@pytest.mark.parametrize("fn", [double, adouble])
def test_bad_arguments_are_named(fn, arguments, error):
    """At once, for coroutine functions too, and nothing is called."""
    (name,) = arguments
    with pytest.raises(error, match=f"^{name}: "):
        stampede(**{"fn": fn, "args": (1,), **arguments})


def test_a_plain_function_that_returns_a_coroutine():
    """A lambda around a coroutine function is refused, and the coroutines give no warning."""
    with pytest.raises(TypeError, match="coroutine function"):
        stampede(lambda: adouble(1), 3)


def test_with_the_fake_clock():
    """A second stampede after the ttl makes one more call."""
    clock = FakeClock()
    fetch = single_flight_ttl(ttl=60, timer=clock)(lambda: object())
    assert [stampede(fetch).calls, stampede(fetch).calls] == [1, 0]
    clock.advance(60)
    assert stampede(fetch).calls == 1


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda: FakeClock("5"), TypeError, "^now: expected seconds"),
        (lambda: FakeClock(None), TypeError, "^now: expected seconds"),
        (lambda: FakeClock(float("nan")), ValueError, "^now: expected a finite number"),
        (lambda: FakeClock(10**400), ValueError, "^now: 1000.* is too large"),
        (lambda: FakeClock().advance(10**400), ValueError, "^seconds: 1000.* is too large"),
        (lambda: FakeClock().advance("x"), TypeError, "^seconds: expected seconds"),
        (lambda: FakeClock().advance(float("inf")), ValueError, "^seconds: expected a finite number"),
        (lambda: FakeClock().set([]), TypeError, "^now: expected seconds"),
    ],
)
def test_a_clock_takes_numbers(wrong, error, said):
    """What is none is named by the argument."""
    with pytest.raises(error, match=said):
        wrong()


def test_a_clock_that_is_told_nonsense_stays_where_it_was():
    """And it may go back."""
    clock = FakeClock(7)
    for move in (clock.advance, clock.set):
        with pytest.raises(ValueError, match="finite"):
            move(float("nan"))
    clock.advance(-2)
    assert clock() == 5.0
