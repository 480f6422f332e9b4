"""Makes all that a release uploads, checks it, and stops before uploading: `nox -s release`.

It builds the sdist, and from that the wheel in pure Python and, where there is a C compiler, the one for
this interpreter. It checks their metadata and contents, installs each wheel into an environment of its own,
and uses it there (`smoke.py`). Then it says what stands in the way of a release; `--rehearsal` does not fail
for that.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMOKE = Path(__file__).with_name("smoke.py")
LABELS = ("Documentation", "Source", "Changelog", "Issues")
OF_THE_CHECKOUT = (".ci/", ".github/", ".gitignore")  # what an sdist does not need


class NotReady(Exception):
    """Something that was built is not as it should be."""


# -- what stands in the way -----------------------------------------------------------------------------


def version_of(root: Path) -> str:
    """The version in the one place that has it."""
    text = (root / "singleflight" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return version


def obstacles(root: Path, today: datetime.date) -> list[str]:
    """Return what must be done by hand before this checkout can be released; each says what and where."""
    version = version_of(root)
    return [*_of_changelog(root, version, today), *_of_urls(root), *_of_repository(root, version)]


def _of_changelog(root: Path, version: str, today: datetime.date) -> Iterator[str]:
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## (\S+) \((.+)\)$", text, re.MULTILINE)
    if first is None or first[1] != version:
        yield f"CHANGELOG.md: its first section is not of version {version}"
        return
    try:
        date = datetime.date.fromisoformat(first[2])
    except ValueError:
        yield f"CHANGELOG.md: {version} has no date, but ({first[2]}); write (YYYY-MM-DD)"
        return
    if date > today:
        yield f"CHANGELOG.md: {version} is dated {date}, which is still to come"


def _of_urls(root: Path) -> Iterator[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = project.get("urls", {})
    for label in LABELS:
        if not str(urls.get(label, "")).startswith("https://"):
            yield f"pyproject.toml: [project.urls] has no https address for {label}"


def _of_repository(root: Path, version: str) -> Iterator[str]:
    changed = _git(root, "status", "--porcelain")
    if changed is None:
        yield "this is no Git repository, so the release cannot be tagged"
        return
    if changed:
        yield "git: there are changes that are not committed"
    tagged = _git(root, "rev-list", "-n", "1", f"v{version}")
    if tagged and tagged != _git(root, "rev-parse", "HEAD"):
        yield f"git: v{version} is the tag of another commit; raise __version__ in singleflight/__init__.py"


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def dead_links(description: str) -> list[str]:
    """The links of a description that lead into a checkout; on a package index they lead nowhere."""
    return re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", description)


# -- what is built --------------------------------------------------------------------------------------


def build(dist: Path, pure: bool) -> None:
    """Build an sdist, and a wheel from it, as an installer does."""
    environment = {**os.environ, "SINGLEFLIGHT_PURE": "1"} if pure else dict(os.environ)
    run("-m", "build", "--outdir", str(dist), str(ROOT), environment=environment)


def check_sdist(sdist: Path, committed: list[str]) -> None:
    """It has every file that is committed, but those that concern the checkout alone."""
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in committed if not name.startswith(OF_THE_CHECKOUT)}
    if missing := sorted(wanted - inside):
        raise NotReady(f"{sdist.name} lacks {len(missing)} files: {', '.join(missing[:10])}")
    if foreign := sorted(name for name in inside if name.endswith((".so", ".pyd", ".pyc"))):
        raise NotReady(f"{sdist.name} has files that were built: {', '.join(foreign)}")


def check_wheel(wheel: Path, version: str, pure: bool) -> None:
    """Name, version and tags are right, its types are announced, and C is in it if and only if it says so."""
    metadata, names = contents(wheel)
    if (metadata["Name"], metadata["Version"]) != ("singleflight-kit", version):
        raise NotReady(f"{wheel.name} calls itself {metadata['Name']} {metadata['Version']}")
    if "singleflight/py.typed" not in names:
        raise NotReady(f"{wheel.name} lacks singleflight/py.typed")
    compiled = [name for name in names if name.endswith((".so", ".pyd"))]
    if pure is bool(compiled) or pure is not wheel.name.endswith("-py3-none-any.whl"):
        raise NotReady(f"{wheel.name} has {compiled or 'nothing that was compiled'}")


def contents(wheel: Path) -> tuple[Message, list[str]]:
    """The metadata of a wheel and the names of its files."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(metadata).decode()), names


def use(wheel: Path, version: str, pure: bool) -> None:
    """Install it into an environment that has nothing else, and use it there, away from the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "Scripts" if os.name == "nt" else "bin", "python"))
        run("-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel), python=python)
        run("-m", "pip", "check", python=python)
        run("-I", str(SMOKE), version, "pure" if pure else "compiled", python=python, folder=folder)


def run(
    *arguments: str,
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
    folder: str | None = None,
) -> None:
    """Run Python with these arguments; raise NotReady if it fails."""
    if subprocess.run([python, *arguments], env=environment, cwd=folder, check=False).returncode:
        raise NotReady(f"failed: python {' '.join(arguments)}")


def make(dist: Path) -> list[Path]:
    """Build and check everything; return the files."""
    version = version_of(ROOT)
    build(dist, pure=True)
    (sdist,) = dist.glob("*.tar.gz")
    (pure,) = dist.glob("*-py3-none-any.whl")
    listed = _git(ROOT, "ls-files")
    if listed is not None:
        check_sdist(sdist, [name for name in listed.splitlines() if (ROOT / name).is_file()])
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), pure=False)
        wheels = [
            (pure, True),
            *((wheel, False) for wheel in Path(folder).glob("*.whl") if wheel.name != pure.name),
        ]
        run("-m", "twine", "check", "--strict", str(sdist), *(str(wheel) for wheel, _ in wheels))
        for wheel, is_pure in wheels:
            run("-m", "check_wheel_contents", str(wheel))
            check_wheel(wheel, version, is_pure)
            use(wheel, version, is_pure)
        if len(wheels) == 1:
            print("No C compiler here: the wheel with the hit path in C was not tried.")
    return [sdist, pure]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rehearsal", action="store_true", help="say what stands in the way, and do not fail for it"
    )
    parser.add_argument(
        "--dist", type=Path, default=ROOT / "dist", help="a folder for the files (default: dist)"
    )
    options = parser.parse_args()
    options.dist.mkdir(exist_ok=True)
    if list(options.dist.iterdir()):
        raise SystemExit(f"{options.dist} is not empty")
    try:
        files = make(options.dist)
    except NotReady as error:
        raise SystemExit(str(error)) from None
    in_the_way = obstacles(ROOT, datetime.datetime.now(datetime.UTC).date())
    if links := dead_links(contents(files[1])[0].get_payload()):
        in_the_way.append(
            f"README.md: {len(links)} links lead into the checkout, such as {links[0]}; on a package index"
            " they lead nowhere: write addresses, or give it a readme of its own"
        )
    print("\nBuilt, checked and used:")
    for file in files:
        print(f"  {hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")
    print("Wheels with the hit path in C are built for each platform by .github/workflows/wheels.yml.")
    if in_the_way:
        print("\nIn the way of a release:", *in_the_way, sep="\n  - ")
        raise SystemExit(0 if options.rehearsal else 1)
    tag = f"v{version_of(ROOT)}"
    print(f"\nReady. Nothing was uploaded. Tag this commit {tag}, then upload {options.dist} with twine.")


if __name__ == "__main__":
    main()
