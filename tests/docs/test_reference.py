"""The documentation names what there is, and nothing else."""

import importlib.util
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from sybil import Document

import singleflight
from singleflight import single_flight_ttl
from singleflight.decorator.surface import Controls
from singleflight.telemetry import events

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
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
    written = {
        "max_idle_locks": "<maxsize>",
        "cache_if": "is_not_none",
        "timer": "time.monotonic",
        "policy": "TTLCache",
    }
    expected = []
    for name, parameter in inspect.signature(single_flight_ttl).parameters.items():
        default = "" if parameter.default is parameter.empty else f"={written.get(name, parameter.default)}"
        expected.append(f"{name}{default}")
    assert shown.split(", ") == [expected[0], "/", "*", *expected[1:]]


def test_every_kind_of_event_is_documented():
    """Each kind is in the how-to's list and each class in the reference."""
    howto = (DOCS / "howto" / "control.md").read_text()
    for kind in events.Event.__subclasses__():
        assert f"`{kind.kind}`" in howto
        assert re.search(rf"\b{kind.__name__}\b", REFERENCE)


def test_every_control_has_a_docstring():
    """The reference takes the control methods' text from their docstrings."""
    controls = [member for name, member in vars(Controls).items() if not name.startswith("_")]
    assert len(controls) == 18
    assert all(inspect.getdoc(control) for control in controls)


def test_directives_are_in_restructured_text_blocks():
    """Elsewhere Markdown would show the source of what a directive makes."""
    outside = re.sub(r"```\{eval-rst\}.*?```", "", REFERENCE, flags=re.DOTALL)
    assert not re.search(r"auto(class|function|module|exception|property)", outside)


@pytest.mark.parametrize("folder", ["", "howto"])
def test_every_page_is_reachable(folder):
    """Each page of the documentation is in the table of contents of its folder."""
    pages = {path.stem for path in (DOCS / folder).glob("*.md")} - {"index"}
    index = (DOCS / folder / "index.md").read_text()
    (listed,) = re.findall(r":::\{toctree\}\n(?::.*\n)+\n(.*?)\n:::", index, re.DOTALL)
    subfolders = {f"{path.parent.name}/index" for path in (DOCS / folder).glob("*/index.md")}
    assert set(listed.split()) == pages | subfolders


def test_links_between_pages_lead_somewhere():
    """Each link from one Markdown file to another names a file that exists, and a heading of it."""
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("findings/*.md")]:
        for name, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name}: {name}"
            assert not anchor or anchor in anchors(target.read_text()), f"{page.name}: #{anchor}"


def anchors(text):
    """The names under which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    return named | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def test_the_landing_page_says_what_it_installs():
    """It has the version and a command that works in a checkout; no page installs what is not published."""
    index = (DOCS / "index.md").read_text()
    assert "| Version | {{ version }}," in index
    assert "    python3 -m pip install .\n" in index
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        assert not re.search(r"install[^\n`]*singleflight-kit", page.read_text()), page.name


def test_no_block_about_another_library_is_dead():
    """A block that needs another library names one of the extra `bench`, which `nox -s peers` installs."""
    page = (DOCS / "howto" / "migrate.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {re.match(r"[\w-]+", needed)[0].replace("-", "_") for needed in extras["bench"]}
    conditions = re.findall(r"^<!-- skip: (.*) -->$", page, re.MULTILINE)
    needed = [re.match(r'next if\(not .*find_spec\("(\w+)"\)', condition)[1] for condition in conditions]
    assert set(needed) == {"async_lru", "cachebox", "cashews", "dogpile"}
    assert set(needed) <= installed
    sections = page.split("\n## From ")[1:]
    assert len(sections) == 6
    for section in sections:
        blocks = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert len(blocks) >= 2
        assert [("singleflight" in block) for block in blocks] == [False, True] * (len(blocks) // 2)


def test_each_code_block_is_run_alone(tmp_path):
    """A block of a page cannot use what an earlier block defined, so each can be copied by itself."""
    page = tmp_path / "page.md"
    page.write_text("```python\nnumber = 1\n```\n\n```python\nassert number == 1\n```\n")
    spec = importlib.util.spec_from_file_location("runs_code_blocks", ROOT / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    first, second = Document.parse(str(page), conftest.StandaloneCodeBlockParser())
    first.evaluate()
    with pytest.raises(NameError, match="number"):
        second.evaluate()


def test_llms_txt_shows_what_there_is():
    """The controls and options that it names are the decorator's, and it links to every how-to guide."""
    text = (DOCS / "llms.txt").read_text()
    guides = {f"howto/{path.stem}.html" for path in (DOCS / "howto").glob("*.md") if path.stem != "index"}
    assert guides == {link for link in re.findall(r"\]\(([^)]+)\)", text) if link.startswith("howto/")}
    for name in re.findall(r"`(?:price)?\.(\w+)\(", text):
        assert hasattr(Controls, name), name
    options = set(inspect.signature(single_flight_ttl).parameters)
    assert {"ttl", "copy", "cache_if", "failure_ttl"} <= {*re.findall(r"`(\w+)`", text)} & options


@pytest.mark.parametrize("page", ["why", "tutorial", "reference", "limits", "howto/index", "howto/lifetimes"])
def test_words_are_linked_where_a_reader_meets_them(page):
    """The pages that readers start with link words to the glossary, and the landing page links to it."""
    glossary = (DOCS / "glossary.md").read_text()
    linked = re.findall(r"\{term\}`(?:[^`<]+<)?([^`>]+)>?`", (DOCS / f"{page}.md").read_text())
    assert len(linked) >= 2
    assert [word for word in linked if f"\n{word}\n" not in glossary] == []
    assert "{doc}`glossary`" in (DOCS / "index.md").read_text()
