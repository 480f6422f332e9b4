"""The examples, run as a newcomer runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *arguments, cwd=None):
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=cwd)


def test_the_price_board_shows_fifty_requests_against_five(tmp_path):
    """Undecorated 50 requests reach the server, decorated 5; progress goes to stderr."""
    pytest.importorskip("alpaca")
    done = run("price_board.py", "--latency", "0.05", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {
        line.split()[0]: line.split()[1]
        for line in done.stdout.splitlines()
        if line.split()[:1] in (["undecorated"], ["decorated"])
    }
    assert rows == {"undecorated": "50", "decorated": "5"}
    assert "[Account 1] Cached new bid price for" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_the_price_board_refuses_bad_flags():
    """A bad number is named, with exit code 2."""
    pytest.importorskip("alpaca")
    done = run("price_board.py", "--widgets", "0")
    assert done.returncode == 2
    assert "--widgets" in done.stderr


def test_the_sqlite_report():
    """Twenty threads, one query; an invalidation makes the second."""
    done = run("sqlite_report.py")
    assert "1 query" in done.stdout, done.stderr
    assert "2 queries" in done.stdout


def test_the_http_fetch():
    """Thirty calls, three requests."""
    done = run("http_fetch.py")
    assert "30 calls, 3 requests" in done.stdout, done.stderr
