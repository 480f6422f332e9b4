"""The pictures of the documentation show what the library does, and are those that the command draws."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from singleflight.core.flight import State
from tools.pictures import recordings, run, states

ROOT = Path(__file__).parents[2]
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))


def test_the_pictures_are_those_that_the_command_draws():
    """Drawn again, what was recorded and what the code says give each file byte for byte, and no other."""
    drawn = run.pictures()
    assert {path.name: path.read_text(encoding="utf-8") for path in PICTURES} == drawn


@pytest.mark.parametrize("name", ["ages", "outage"])
def test_what_runs_on_a_clock_that_is_set_runs_again_as_recorded(name):
    """The library of today does what these pictures show."""
    assert recordings.RECORDINGS[name]() == run.recorded()[name]


def test_the_recorded_burst_is_one_call_in_place_of_one_each():
    """Without the decorator each caller called, both times; with it one did, and served all others."""
    burst = run.recorded()["burst"]
    callers = len(burst["with"]["callers"])
    assert burst["without"]["calls"] == 2 * callers
    assert burst["with"]["calls"] == 1
    for lane in burst["with"]["callers"]:
        first, second = lane
        assert first["asked"] <= first["served"] <= second["asked"] <= second["served"]
        assert second["called"] is None


def test_the_states_are_those_of_the_code():
    """Each row of the table is in the picture, between states that the code has."""
    rows = states.table(states.SOURCE.read_text(encoding="utf-8"))
    assert len(rows) == 11
    assert states.used(rows) == set(states.PLACES)
    assert {state for state in states.PLACES if not state.startswith("(")} == set(State.__members__)
    picture = states.draw(rows)
    for row in rows:
        assert row.what.replace("`", "") in picture


def test_a_state_without_a_place_is_an_error():
    """A picture that leaves a state out is not drawn."""
    with pytest.raises(KeyError, match="HOVERING"):
        states.draw([states.Transition("FLYING", "a gust", "HOVERING", "none", "-")])


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_pictures_stand_alone(path):
    """Each is well-formed, has a title and a description, is for light and dark, and loads nothing."""
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    names = [child.tag.partition("}")[2] for child in root]
    assert names[:2] == ["title", "desc"]
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_what_is_drawn_is_on_the_paper(path):
    """Nothing begins outside of the picture, which is as wide as a phone shows it."""
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width <= 420
    for element in root.iter():
        if element.tag.endswith(("}text", "}rect")):
            x, y = float(element.attrib["x"]), float(element.attrib["y"])
            assert 0 <= x <= x + float(element.attrib.get("width", 0)) <= width
            assert 0 <= y <= y + float(element.attrib.get("height", 0)) <= height
