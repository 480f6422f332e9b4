"""The page of promises says what this folder's tests show, no more and no less."""

import re
from collections import Counter

import pytest

from .page import CATEGORIES, HERE, PAGE, promises, render

ALL = {category: list(promises(category)) for category in CATEGORIES}


def test_the_page_is_made_from_the_tests():
    """If this fails, run `python tests/conformance/page.py`."""
    assert PAGE.read_text(encoding="utf-8") == render()


def test_every_file_is_a_category():
    """There is one file for each, and none besides."""
    assert {path.stem for path in HERE.glob("test_*.py")} == {
        f"test_{name}" for name in (*CATEGORIES, "page")
    }


def test_every_promise_is_made_once():
    """Names and sentences are unique over all categories, so that each row is one test."""
    for place in (0, 1):
        counted = Counter(promise[place] for made in ALL.values() for promise in made)
        assert [twice for twice, times in counted.items() if times > 1] == []


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_promise_reads_as_one(category):
    """It is one line that ends with a full stop; what is known of others begins with "Elsewhere: "."""
    assert ALL[category]
    for name, text, elsewhere in ALL[category]:
        assert re.fullmatch(r"[^\n]{20,}\.", text), name
        assert not elsewhere or re.fullmatch(r"Elsewhere: .*\.", elsewhere), name


@pytest.mark.parametrize("category", CATEGORIES)
def test_only_the_public_surface_is_used(category):
    """No test of a promise reaches into the library: what it imports of it is what users import."""
    source = (HERE / f"test_{category}.py").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:from|import) (singleflight\S*)", source)) <= {
        "singleflight",
        "singleflight.redis",
        "singleflight.testing",
    }
    assert "_self_" not in source
    assert not re.search(r"\b(fetch|price|locks)\._", source)
