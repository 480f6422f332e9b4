"""The library under every schedule with a few preemptions: the rules hold whatever the order.

`EXPLORE_FURTHER=1` in the environment allows each scene one preemption more (`nox -s explore`).
"""

import os

import pytest

from ..sampling import one_in
from .scenes import FEATURES, FORKS, SCENES
from .world import explored

FURTHER = int(os.environ.get("EXPLORE_FURTHER", "0"))
pytestmark = pytest.mark.timeout(60 + 3600 * FURTHER)


@pytest.mark.parametrize("setting", one_in(16, SCENES.values(), keep=11, packed=False), ids=SCENES)
def test_every_schedule(library, setting):
    """Two to four threads, tasks and loops, on one or two keys."""
    scene, preemptions, options = setting
    assert explored(library, scene, preemptions + FURTHER, **options) > 10


@pytest.mark.long
@pytest.mark.parametrize("setting", SCENES.values(), ids=SCENES)
def test_every_schedule_of_the_long_way(long_way, setting):
    """The same where the usual miss takes no short way."""
    scene, preemptions, options = setting
    assert explored(long_way, scene, preemptions + FURTHER, **options) > 10


@pytest.mark.parametrize("setting", one_in(8, FEATURES.values(), packed=False), ids=FEATURES)
def test_every_single_switch_where_a_feature_is_in_use(library, setting):
    """Tags, `max_flights`, `soft_timeout`, `Unchanged`, `clear`, answers and copies: one preemption."""
    scene, preemptions, options = setting
    assert explored(library, scene, min(preemptions, 1) + FURTHER, **options) > 5


@pytest.mark.long
@pytest.mark.timeout(300 + 3600 * FURTHER)
@pytest.mark.parametrize("setting", FEATURES.values(), ids=FEATURES)
def test_every_schedule_where_a_feature_is_in_use(library, setting):
    """The same with as many as there may be."""
    scene, preemptions, options = setting
    assert explored(library, scene, preemptions + FURTHER, **options) > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("setting", one_in(len(FORKS), FORKS.values(), packed=False), ids=FORKS)
def test_every_moment_of_a_fork(library, setting):
    """Wherever the others are, the child gets its values and hangs nowhere."""
    scene, preemptions, options = setting
    assert explored(library, scene, preemptions + FURTHER, **options) > 5
