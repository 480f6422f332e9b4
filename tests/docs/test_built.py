"""The documentation as it is built: `nox -s docs` runs these; elsewhere they are long, and need sphinx.

`BUILT_DOCS` names a folder in which it was built already.
"""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

import singleflight

from .browser import CHROMIUM, dom, served, widths

ROOT = Path(__file__).parents[2]
NEEDED = ("sphinx", "furo", "myst_parser", "sphinx_copybutton")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not os.environ.get("BUILT_DOCS") and not all(map(importlib.util.find_spec, NEEDED)),
        reason="needs the extra docs",
    ),
]
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder with the built pages."""
    if built := os.environ.get("BUILT_DOCS"):
        return Path(built).resolve()
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "docs", folder], cwd=ROOT, check=True
    )
    return folder


class Page(HTMLParser):
    """The links, the pictures and the names of places of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.pictures, self.places = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places.update(filter(None, (found.get("id"), found.get("name"))))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.pictures.append(found)


def pages(site):
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return {name: Page((site / name).read_text(encoding="utf-8")) for name in names if "_modules" not in name}


def test_every_link_leads_somewhere(site):
    """Within the site each link names a page that is there, and a place on it."""
    found = pages(site)
    broken = []
    for name, page in found.items():
        for link in page.links:
            target, place = urldefrag(urljoin(f"http://site/{name}", unquote(link)))
            if not target.startswith("http://site/"):
                continue
            other = target.removeprefix("http://site/") or "index.html"
            if not (site / other).is_file() or (
                place and other in found and place not in found[other].places
            ):
                broken.append((name, link))
    assert broken == []


def test_every_picture_says_what_it_shows(site):
    """Each has words for those who do not see it, and is there."""
    shown = [(name, picture) for name, page in pages(site).items() for picture in page.pictures]
    assert len({picture["src"].rpartition("/")[2] for _, picture in shown}) >= 4
    for name, picture in shown:
        if picture.get("class") == "toggler":  # of Sphinx's own index of modules
            continue
        assert len(picture.get("alt", "")) > 40, (name, picture)
        assert (site / name).parent.joinpath(picture["src"]).is_file()


# What newcomers ask, and a place with the answer.
QUESTIONS = {
    "install it?": "index.html#install",
    "use it on a method?": "howto/keys.html#decorate-methods",
    "clear one user?": "howto/control.html#clear-one-instance",
    "expose metrics?": "howto/metrics.html",
    "test it?": "howto/testing.html",
    "share it between workers?": "howto/fleet.html",
    "handle a function that fails?": "howto/lifetimes.html#handle-failures",
    "call it from asyncio and threads?": "howto/tasks.html#share-calls-between-threads-and-tasks",
    "migrate from lru_cache?": "howto/migrate.html#from-functools",
    "see what it is doing?": "howto/live.html",
}


def test_the_landing_page_answers_newcomers(site):
    """Ten questions, each with a link to its answer: one click away."""
    text = (site / "index.html").read_text(encoding="utf-8")
    table = text[text.index('id="what-newcomers-ask"') :]
    rows = re.findall(r"<tr[^>]*><td><p>(.*?)</p></td>\s*<td><p>(.*?)</p></td>", table, re.DOTALL)
    answers = {unescape(re.sub(r"<[^>]+>", "", question)): answer for question, answer in rows}
    assert set(answers) == set(QUESTIONS)
    for question, place in QUESTIONS.items():
        links = [urljoin("http://site/index.html", link)[12:] for link in Page(answers[question]).links]
        assert any(link.startswith(place) for link in links), (question, links)


def test_the_landing_page_says_how_to_install_which_version(site):
    """The version is the package's, the command has a button that copies it."""
    text = (site / "index.html").read_text(encoding="utf-8")
    assert f"<p>{singleflight.__version__}, " in text
    assert re.search(r"<pre>(<span></span>)?python3 -m pip install \.", text)
    assert "copybutton.js" in text


def test_the_reference_says_types_and_defaults(site):
    """Each parameter has its type, each data class its fields, each control what it returns."""
    text = (site / "reference.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<strong>[*\w]+</strong> \(<em>", text)) > 60
    assert re.findall(r"<strong>([*\w]+)</strong> \N{EN DASH} ", text) == []
    plain = unescape(re.sub(r"<[^>]+>", "", text))
    for cls in (singleflight.Stats, singleflight.Entry, singleflight.FlightInfo, singleflight.Landing):
        first = dataclasses.fields(cls)[0]
        assert f"Fields: {first.name}: {first.type}, " in plain
    for name in ("entry", "stats", "flights", "explain", "invalidate_tag", "clear"):
        (place,) = re.findall(
            rf'id="singleflight.decorator.surface.Controls.{name}">(.*?)</dl>\s*</dd>', text, re.DOTALL
        )
        assert "Return type" in place, name


def test_the_reference_says_what_constants_are(site):
    """Not what their types are."""
    text = (site / "reference.html").read_text(encoding="utf-8")
    told = {
        name: re.search(rf'id="singleflight\.{name}">.*?<dd>(.*?)</dd>', text, re.DOTALL)[1]
        for name in ("Unchanged", "accelerated")
    }
    assert "to keep the value that is there" in told["Unchanged"]
    assert "served in C in this process" in told["accelerated"]


def test_llms_txt_is_at_the_root_and_true(site):
    """Programs that look for it find it where they look, and what it links to is there."""
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert text == (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in linked if not (site / link).is_file()] == []


SEARCHED = {
    "install": {"index.html"},
    "metrics": {"howto/metrics.html"},
    "redis": {"reference.html", "howto/fleet.html"},
    "django": {"howto/web.html"},
    "migrate": {"howto/migrate.html"},
}


@in_a_browser
@pytest.mark.timeout(300)
@pytest.mark.parametrize("word", SEARCHED)
def test_the_search_finds_the_page(site, word):
    """Among the first three that a reader is shown for the word is a page that answers."""
    with served(site) as address:
        shown = dom(f"{address}/search.html?q={word}")
    first = [urldefrag(link)[0] for link in re.findall(r'<a href="([^"]+)" data-score', shown)][:3]
    assert SEARCHED[word] & set(first), first


@in_a_browser
@pytest.mark.timeout(300)
def test_each_block_of_code_has_a_button_that_copies_it(site):
    """Also those of the reference, where prompts and answers are left out of the copy."""
    with served(site) as address:
        for page in ("tutorial", "reference"):
            shown = dom(f"{address}/{page}.html")
            blocks = shown.count('<div class="highlight"><pre')
            assert 0 < blocks == len(re.findall(r'<button class="copybtn', shown))
    script = (site / "_static" / "copybutton.js").read_text(encoding="utf-8")
    assert r"'>>> |\\.\\.\\. ', true, true" in script


@in_a_browser
@pytest.mark.timeout(300)
def test_no_page_scrolls_sideways_on_a_phone(site):
    """At 390 pixels each page is as wide as the window; what is wider, such as code, scrolls by itself."""
    names = list(pages(site))
    found = widths(site, names, seconds=120, timeout=240)
    assert [name for name, *_ in found] == names
    assert [one for one in found if one[1] > one[2]] == []
