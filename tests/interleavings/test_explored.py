"""The library under every schedule with a few preemptions: the rules hold whatever the order."""

import os

import pytest

from .scenes import FORKS, SCENES
from .world import explored


@pytest.mark.parametrize("setting", SCENES.values(), ids=SCENES)
def test_every_schedule(library, setting):
    """Two to four threads, tasks and loops, on one or two keys."""
    scene, preemptions, options = setting
    assert explored(library, scene, preemptions, **options) > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("setting", FORKS.values(), ids=FORKS)
def test_every_moment_of_a_fork(library, setting):
    """Wherever the others are, the child gets its values and hangs nowhere."""
    scene, preemptions, options = setting
    assert explored(library, scene, preemptions, **options) > 5
