"""Runs every Python code block of README and docs, and every doctest of the package."""

from doctest import ELLIPSIS, NORMALIZE_WHITESPACE

from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser
from sybil.sybil import SybilCollection

TUTORIAL = "docs/tutorial.md"  # the one page whose blocks continue one another


class StandaloneCodeBlockParser(CodeBlockParser):
    """Runs each Python block as a script of its own, so that readers can copy it alone."""

    language = "python"

    def evaluate(self, example: Example) -> None:
        """Run the block in a new namespace."""
        example.namespace = {"__name__": "__main__"}
        PythonEvaluator()(example)


pytest_collect_file = SybilCollection(
    [
        Sybil([StandaloneCodeBlockParser(), SkipParser()], patterns=["*.md"], excludes=[TUTORIAL]),
        Sybil([PythonCodeBlockParser()], pattern=TUTORIAL),
        Sybil([DocTestParser(ELLIPSIS | NORMALIZE_WHITESPACE)], pattern="*.py", path="singleflight"),
    ]
).pytest()
