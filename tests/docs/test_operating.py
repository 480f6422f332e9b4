"""What the page for operators says of the server is what the library needs of it."""

import re
from pathlib import Path

from ..redis.rights import RULES


def test_the_page_for_operators_names_the_least_rights():
    """All of them, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    redis-cli ACL SETUSER (?:.*\\\n)*.*$", page, re.MULTILINE)
    assert sorted(re.findall(r"\+\w+", command)) == sorted(RULES)
