"""The release task: what stands in its way is found, and what was built is looked at."""

import datetime
import io
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import singleflight
from tools.release import run as release

ROOT = Path(__file__).parents[2]
TODAY = datetime.date(2026, 12, 1)
NO_ADDRESS = "pyproject.toml: [project.urls] has no https address for"
URLS = "[project.urls]\n" + "".join(f'{label} = "https://example.org"\n' for label in release.LABELS)


def git(root, *arguments):
    subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments], cwd=root, check=True
    )


@pytest.fixture
def checkout(tmp_path):
    """A small checkout of a project that can be released."""
    (tmp_path / "singleflight").mkdir()
    (tmp_path / "singleflight" / "__init__.py").write_text('"""A package."""\n\n__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 (2026-11-30)\n\n- new\n\n## 1.1.0 (x)\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n' + URLS)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "all")
    return tmp_path


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_nothing_stands_in_the_way_of_a_checkout_that_is_ready(checkout):
    """A dated changelog, addresses, and everything committed: also where it is tagged already."""
    assert release.obstacles(checkout, TODAY) == []
    git(checkout, "tag", "v1.2.0")
    assert release.obstacles(checkout, TODAY) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("CHANGELOG.md", "(2026-11-30)", "(unreleased)", ["CHANGELOG.md: 1.2.0 has no date"]),
        ("CHANGELOG.md", "(2026-11-30)", "(2026-12-02)", ["CHANGELOG.md: 1.2.0 is dated 2026-12-02"]),
        ("CHANGELOG.md", "## 1.2.0", "## 1.1.9", ["CHANGELOG.md: its first section is not of version 1.2.0"]),
        ("singleflight/__init__.py", "1.2.0", "1.3.0", ["CHANGELOG.md: its first section is not of"]),
        ("pyproject.toml", "Issues =", "Bugs =", [f"{NO_ADDRESS} Issues"]),
        ("pyproject.toml", URLS, "", [f"{NO_ADDRESS} {label}" for label in release.LABELS]),
    ],
)
def test_what_stands_in_the_way_is_named(checkout, file, old, new, told):
    """Each is told with the file to change, and nothing else is."""
    change(checkout / file, old, new)
    git(checkout, "commit", "-q", "-a", "-m", "changed")
    found = release.obstacles(checkout, TODAY)
    assert len(found) == len(told)
    for line, beginning in zip(found, told, strict=True):
        assert line.startswith(beginning)


def test_a_checkout_with_changes_or_another_tag_is_not_released(checkout):
    """What is uploaded is a commit, and one version is one commit."""
    (checkout / "more.txt").write_text("x")
    assert release.obstacles(checkout, TODAY) == ["git: there are changes that are not committed"]
    git(checkout, "tag", "v1.2.0")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-q", "-m", "more")
    (told,) = release.obstacles(checkout, TODAY)
    assert told.startswith("git: v1.2.0 is the tag of another commit")


def test_links_that_lead_into_a_checkout_are_found():
    """On a package index a relative link leads nowhere; a heading and an address do not."""
    text = "[a](docs/a.md) [b](https://example.org) [c](#here) [d](LICENSE)"
    assert release.dead_links(text) == ["docs/a.md", "LICENSE"]


def sdist(path, names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"x-1.2.0/{name}"), io.BytesIO())
    return path


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.py", "tests/b.py"], None),
        (["a.py"], r"lacks 1 files: tests/b\.py"),
        (["a.py", "tests/b.py", "a.so"], r"has files that were built: a\.so"),
    ],
)
def test_an_sdist_has_what_is_committed_and_nothing_built(tmp_path, names, told):
    """Whoever packages it again can run its tests."""
    path = sdist(tmp_path / "x.tar.gz", names)
    committed = ["a.py", "tests/b.py", ".ci/run", ".gitignore"]
    if told is None:
        release.check_sdist(path, committed)
    else:
        with pytest.raises(release.NotReady, match=told):
            release.check_sdist(path, committed)


def wheel(path, names, version="1.2.0"):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
        archive.writestr("x.dist-info/METADATA", f"Name: singleflight-kit\nVersion: {version}\n\nText.\n")
    return path


@pytest.mark.parametrize(
    ("tag", "names", "version", "pure", "told"),
    [
        ("py3-none-any", ["singleflight/py.typed"], "1.2.0", True, None),
        ("cp311-cp311-linux", ["singleflight/py.typed", "singleflight/a.so"], "1.2.0", False, None),
        ("py3-none-any", ["singleflight/py.typed"], "1.1.0", True, "calls itself singleflight-kit 1.1.0"),
        ("py3-none-any", [], "1.2.0", True, r"lacks singleflight/py\.typed"),
        ("py3-none-any", ["singleflight/py.typed", "a.so"], "1.2.0", True, "has .*a.so"),
        ("py3-none-any", ["singleflight/py.typed"], "1.2.0", False, "has nothing that was compiled"),
        ("cp311-cp311-linux", ["singleflight/py.typed"], "1.2.0", True, "has nothing that was compiled"),
    ],
)
def test_a_wheel_is_what_it_says_it_is(tmp_path, tag, names, version, pure, told):
    """Its version is the package's, it has type information, and its tag agrees with its contents."""
    path = wheel(tmp_path / f"x-1.2.0-{tag}.whl", names, version)
    if told is None:
        release.check_wheel(path, "1.2.0", pure)
    else:
        with pytest.raises(release.NotReady, match=told):
            release.check_wheel(path, "1.2.0", pure)


def test_the_version_is_written_in_one_place():
    """`singleflight/__init__.py` has it; the build, the docs and the release task read it there."""
    assert release.version_of(ROOT) == singleflight.__version__
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r'^version = "', pyproject, re.MULTILINE)
    assert 'path = "singleflight/__init__.py"' in pyproject


def test_the_changelog_is_of_this_version():
    """What stands in the way of a release of this checkout is never that its changes are not written down."""
    found = release.obstacles(ROOT, TODAY)
    assert not [line for line in found if "first section" in line]
