"""The scheduler itself: it finds known bugs, lets their correct twins pass, and tells what hangs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ..scheduler import primitives
from ..scheduler.baton import BEGIN, Deadlock, Livelock, Scheduler
from ..scheduler.explore import Found, explore
from ..scheduler.lines import Lines, codes_within


def playing(*runs, check=lambda: None, tracer=None):
    """A model of these actors, and what has to hold at the end."""

    def model(schedule):
        scheduler = Scheduler(schedule, tracer)
        for run in runs:
            scheduler.spawn(run)
        scheduler.run()
        check()
        return scheduler

    return model


class Counter:
    """Adds one, in two steps."""

    def __init__(self):
        self.lock, self.value = primitives.Lock(), 0

    def add_unsafely(self):
        value = self.value
        primitives.sleep(0)
        self.value = value + 1

    def add_safely(self):
        with self.lock:
            self.add_unsafely()

    def add_in_lines(self):
        value = self.value
        self.value = value + 1


def counting(way, tracer=None):
    def model(schedule):
        counter = Counter()
        add = getattr(counter, way)

        def check():
            assert counter.value == 3

        return playing(add, add, add, check=check, tracer=tracer)(schedule)

    return model


def test_a_lost_update_is_found_and_its_twin_passes():
    """One preemption is enough, and it is among the first runs."""
    with pytest.raises(Found) as found:
        explore(counting("add_unsafely"), preemptions=1)
    assert found.value.runs < 20
    assert explore(counting("add_safely"), preemptions=2) > 20


def test_a_race_between_two_lines_is_found_line_by_line():
    """Without points at lines nobody comes between."""
    explore(counting("add_in_lines"))
    with Lines(codes_within(Counter.add_in_lines.__code__)) as lines:
        with pytest.raises(Found):
            explore(counting("add_in_lines", lines))


def test_the_same_schedule_gives_the_same_run():
    """Also one that fails; and the empty one runs each actor to its end."""
    with pytest.raises(Found) as found:
        explore(counting("add_unsafely"))
    for _ in range(3):
        with pytest.raises(AssertionError, match="assert 2 == 3"):
            counting("add_unsafely")(found.value.schedule)
    assert counting("add_unsafely")(()).trace == ["1: B goes on", "2: C goes on"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=6))
def test_any_schedule_is_a_schedule(schedule):
    """Whatever numbers Hypothesis thinks of; a lock keeps what it promises."""
    counting("add_safely")(schedule)


def test_every_order_is_run_once():
    """Who is next at an end is a choice, too: after the first, three others may go in six orders."""

    def orders(count):
        seen = []

        def model(schedule):
            order = []
            scheduler = playing(*(lambda n=n: order.append(n) for n in range(count)))(schedule)
            seen.append(tuple(order))
            return scheduler

        explore(model, preemptions=0)
        return seen

    assert sorted(orders(2)) == [(0, 1)]  # who begins is no choice: the first does
    assert sorted(orders(4)) == sorted((0, *rest) for rest in permutations_of(1, 2, 3))


def permutations_of(*items):
    if not items:
        return [()]
    return [(item, *rest) for item in items for rest in permutations_of(*(i for i in items if i != item))]


def test_a_lost_wake_up_is_a_deadlock():
    """Looking before the condition is held; its twin looks within."""

    def model_of(careful):
        def model(schedule):
            condition, done = primitives.Condition(), []

            def wait():
                if careful:
                    with condition:
                        while not done:
                            condition.wait()
                elif not done:
                    with condition:
                        condition.wait()

            def finish():
                with condition:
                    done.append(1)
                    condition.notify_all()

            return playing(wait, finish)(schedule)

        return model

    with pytest.raises(Found, match="Deadlock"):
        explore(model_of(careful=False))
    assert explore(model_of(careful=True)) > 3


def test_locks_in_two_orders_are_a_deadlock():
    """It says who waits."""
    one, other = primitives.Lock(), primitives.Lock()

    def nest(outer, inner):
        with outer, inner:
            pass

    def model(schedule):
        for lock in (one, other):
            lock._at_fork_reinit()
        return playing(lambda: nest(one, other), lambda: nest(other, one))(schedule)

    with pytest.raises(Found, match=r"A waits for .*, B waits for") as found:
        explore(model)
    assert isinstance(found.value.why, Deadlock)


def test_an_event_is_waited_for_and_times_out():
    """Time is virtual, and a timer may fire at any point: which comes first is a choice."""
    outcomes = set()

    def model(schedule):
        event, scheduler = primitives.Event(), Scheduler(schedule)
        scheduler.spawn(lambda: event.wait(timeout=5))
        scheduler.spawn(lambda: (primitives.sleep(1), event.set()))
        in_time, _ = scheduler.run()
        outcomes.add((in_time, scheduler.now - BEGIN))
        return scheduler

    explore(model)
    assert outcomes == {(True, 1), (False, 5), (False, 6)}


def test_what_never_ends_is_told():
    """A thread that asks again and again is a livelock."""

    def spin():
        while True:
            primitives.sleep(0)

    with pytest.raises(Livelock):
        playing(spin, spin)(())


def test_an_actor_may_begin_others_and_join_them():
    """What they return and raise is theirs."""
    scheduler = Scheduler()

    def lead():
        scheduler.join(scheduler.spawn(lambda: seen.append("other")))
        seen.append("leader")

    seen = []
    scheduler.spawn(lead)
    scheduler.run()
    assert seen == ["other", "leader"]
    with pytest.raises(ZeroDivisionError):
        playing(lambda: 1 / 0)(())
