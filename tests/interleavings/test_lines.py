"""The same scenes, switching at any line of the library: amid what it reads and writes without a lock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ..sampling import one_in
from .scenes import FEATURES, SCENES
from .world import explored, model

EVERY_LINE = [
    "two threads, one key",
    "two threads, two keys crosswise",
    "a value may run out meanwhile",
    "a thread and two tasks, one key",
    "it fails once, two threads",
    "two threads and an invalidation",
    "two threads and a put",
    "a task is cancelled, a thread wants its value",
    "a flight takes too long",
    "two threads in a cycle",
    "three threads take a lock",
    "two bulk calls overlap",
    "two threads find a stale value",
    "a value is put while the stale one is renewed",
    "three threads, one seat",
    "two threads wait softly",
    "two threads, and their tag is invalidated",
    "an instance is cleared, two threads",
    "a value is kept, and invalidated",
    "it fails, two threads ask how, and a put",
    "two threads in a window",
    "a window, an invalidation and a second caller",
    "a window's member is cancelled",
]
ALL = {**SCENES, **FEATURES}
pytestmark = pytest.mark.timeout(180)
SEVERAL = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 3)), max_size=6)


@pytest.fixture(scope="module")
def lines(library):
    """A point at each line of everything that decides or keeps."""
    modules = """
        coordinator renewal leaving transitions landing cache flight call store expiry entry slots table
        keyed waiters waitgraph latch task_waiters threads tasks wait bulk_call batch bulk_threads controls
        line seats answers current window gathering gather_threads gather_tasks
    """
    with library.lines(*modules.split()) as lines:
        yield lines


@pytest.mark.parametrize("name", one_in(32, EVERY_LINE))
def test_one_switch_at_every_line(library, lines, name):
    """Wherever one actor stops, and whoever goes on until it blocks."""
    scene, _, options = ALL[name]
    assert explored(library, scene, preemptions=1, tracer=lines, **options) > 50


@pytest.mark.parametrize("name", one_in(4, SCENES, keep=1))
def test_several_switches_at_any_lines(library, lines, name):
    """As many as Hypothesis likes."""
    scene, _, options = SCENES[name]
    run = model(library, scene, lines, **options)

    @settings(max_examples=40, deadline=None)
    @given(SEVERAL)
    def check(schedule):
        run(schedule)

    check()
