"""The documentation names what there is, and nothing else."""

import inspect
import re
from pathlib import Path

import singleflight
from singleflight import single_flight_ttl
from singleflight.decorator.surface import Controls
from singleflight.telemetry import events

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference.md").read_text()


def mentioned(text):
    return set(re.findall(r"singleflight\.([A-Za-z_]+)", text))


def test_every_public_name_is_in_the_reference():
    """What `singleflight` exports has an entry, or is a type that the reference describes by its methods."""
    described_otherwise = {
        "Event",
        "Listener",
        "LoggingListener",
        "BoundSingleFlight",
        "SingleFlightFunction",
    }
    assert set(singleflight.__all__) - described_otherwise <= mentioned(REFERENCE)


def test_the_reference_shows_the_options_there_are():
    """Names, order and defaults in the reference are those of the decorator."""
    (shown,) = re.findall(r"single_flight_ttl\((func=.*)\)$", REFERENCE, re.MULTILINE)
    written = {"max_idle_locks": "<maxsize>", "cache_if": "is_not_none", "timer": "time.monotonic"}
    expected = []
    for name, parameter in inspect.signature(single_flight_ttl).parameters.items():
        default = "" if parameter.default is parameter.empty else f"={written.get(name, parameter.default)}"
        expected.append(f"{name}{default}")
    assert shown.split(", ") == [expected[0], "/", "*", *expected[1:]]


def test_every_kind_of_event_is_documented():
    """Each kind is in the how-to's list and each class in the reference."""
    howto = (DOCS / "howto.md").read_text()
    for kind in events.Event.__subclasses__():
        assert f"`{kind.kind}`" in howto
        assert re.search(rf"\b{kind.__name__}\b", REFERENCE)


def test_every_control_has_a_docstring():
    """The reference takes the control methods' text from their docstrings."""
    controls = [member for name, member in vars(Controls).items() if not name.startswith("_")]
    assert len(controls) == 13
    assert all(inspect.getdoc(control) for control in controls)


def test_directives_are_in_restructured_text_blocks():
    """Elsewhere Markdown would show the source of what a directive makes."""
    outside = re.sub(r"```\{eval-rst\}.*?```", "", REFERENCE, flags=re.DOTALL)
    assert not re.search(r"auto(class|function|module|exception|property)", outside)


def test_every_page_is_reachable():
    """Each page of the documentation is in the table of contents."""
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    index = (DOCS / "index.md").read_text()
    (listed,) = re.findall(r":::\{toctree\}\n:hidden:\n\n(.*?)\n:::", index, re.DOTALL)
    assert set(listed.split()) == pages
