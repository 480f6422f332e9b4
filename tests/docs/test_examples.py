"""The examples, run as a newcomer runs them."""

import ast
import contextlib
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from ..drivers import PATIENCE, until
from ..redis.server import binaries
from ..sampling import one_in

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *arguments, cwd=None, **environment):
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    clean = {key: text for key, text in os.environ.items() if not key.startswith(("APCA_", "SINGLEFLIGHT_"))}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=50, cwd=cwd, env={**clean, **environment}
    )


def started(name, *arguments, **streams):
    """A process that runs an example, for the tests that end it by Ctrl-C."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.Popen(
        command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **streams}
    )


def on_a_terminal(name, *arguments, **environment):
    """What an example prints to a terminal of 80 columns, and its exit code."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    clean = {
        key: text for key, text in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    clean |= {"TERM": "xterm-256color", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment}
    process = started(name, *arguments, stdout=theirs, stderr=subprocess.DEVNULL, env=clean)
    os.close(theirs)
    printed = b""
    with open(ours, "rb", buffering=0) as reading, contextlib.suppress(OSError):  # which is the end
        while part := reading.read(4096):
            printed += part
    return process.wait(50), printed.decode().replace("\r\n", "\n")


def widest(output):
    return max(map(len, output.splitlines()))


def requests_made(output):
    """The board's table: how many requests each run made."""
    return {
        name: int(count)
        for name, count in re.findall(r"^(\w*decorated|shared|leader killed) +(\d+) ", output, re.MULTILINE)
    }


class TestPriceBoard:
    """The board, over HTTP against its own server."""

    pytestmark = pytest.mark.usefixtures("alpaca")

    @pytest.fixture
    def alpaca(self):
        """Needs alpaca-py."""
        pytest.importorskip("alpaca")

    def test_fifty_requests_against_five(self, tmp_path):
        """From any folder; results on stdout, progress on stderr, no control characters in a pipe."""
        done = run("price_board.py", "--latency", "0.05", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert requests_made(done.stdout) == {"undecorated": 50, "decorated": 5}
        assert widest(done.stdout) <= 80
        line = r"^  \d\d:\d\d:\d\d,\d\d\d DEBUG \[Account 1\] Cached new bid price for \w+: \$\d+\.\d\d$"
        assert re.search(line, done.stdout, re.MULTILINE)
        assert "10 widgets x 5 symbols ..." in done.stderr
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout + done.stderr)

    @pytest.mark.parametrize(
        ("mode", "by"),
        one_in(
            3, [("threads", "10 threads"), ("tasks", "10 tasks"), ("mixed", "5 threads and 5 tasks")], keep=2
        ),
    )
    def test_each_mode(self, mode, by):
        """The same numbers whatever the widgets are; the table and the log say what that is."""
        done = run("price_board.py", "--latency", "0.05", "--mode", mode)
        assert done.returncode == 0, done.stderr
        assert requests_made(done.stdout) == {"undecorated": 50, "decorated": 5}
        assert f"10 widgets x 5 symbols, at once, by {by}, against" in done.stdout
        assert f"decorated, {mode}: 10 widgets x 5 symbols ...\n" in done.stderr
        logs = re.findall(r"^From the log of the (\w+):\n  \d\d:.* \[Account 1\] ", done.stdout, re.MULTILINE)
        assert logs == by.replace("10 ", "").replace("5 ", "").split(" and ")
        assert len(done.stderr.splitlines()) == 3  # no traceback, no warning

    @pytest.mark.long
    def test_saving_the_bursts(self, tmp_path):
        """`--save` draws both runs as one page: fifty requests, and five calls for fifty callers."""
        page = tmp_path / "burst.html"
        done = run("price_board.py", "--latency", "0.05", "--save", str(page))
        assert done.returncode == 0, done.stderr
        assert requests_made(done.stdout) == {"undecorated": 50, "decorated": 5}
        tiles = re.findall(r"<b>([^<]+)</b><span>([^<]+)", page.read_text(encoding="utf-8"))
        assert tiles[:4] == [
            ("50", "calls without the decorator"),
            ("50", "calls received"),
            ("5", "calls made"),
            ("45", "calls saved"),
        ]
        refused = run("price_board.py", "--bulk", "--save", str(page))
        assert refused.returncode == 2
        assert "argument --save: " in refused.stderr

    @pytest.mark.long
    def test_a_single_widget(self):
        """Half of one is a thread."""
        done = run("price_board.py", "--mode", "mixed", "--widgets", "1", "--symbols", "ASML")
        assert "1 widget x 1 symbol, at once, by 1 thread, against" in done.stdout, done.stderr

    def test_on_a_terminal(self):
        """Colours, and bars whose lengths are those of the numbers; the same lines otherwise."""
        pytest.importorskip("rich")
        code, printed = on_a_terminal("price_board.py", "--latency=0.05")
        assert code == 0
        assert "\x1b[" in printed
        plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", plain)
        assert widest(plain) <= 80
        assert requests_made(plain) == {"undecorated": 50, "decorated": 5}
        bars = re.findall(r"^(\w+) +(█+)\S? (50|5)$", plain, re.MULTILINE)
        lengths = {name: len(bar) for name, bar, _ in bars}
        assert lengths["undecorated"] // 10 == lengths["decorated"]

    @pytest.mark.parametrize("reason", ["no rich", "a dumb terminal"])
    def test_a_terminal_without_colours(self, reason, tmp_path):
        """Plain text, without rich or where the terminal is none for that."""
        (tmp_path / "rich.py").write_text("raise ImportError('no rich here')")
        places = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        more = places if reason == "no rich" else {"TERM": "dumb"}
        code, printed = on_a_terminal("price_board.py", "--latency=0.05", **more)
        assert code == 0
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", printed)
        assert requests_made(printed) == {"undecorated": 50, "decorated": 5}

    @pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent in another way")
    def test_an_interrupted_board(self):
        """It ends the board with one line, though requests are being made."""
        board = started("price_board.py", "--latency", "1", "--mode", "mixed")
        try:
            assert board.stderr.readline() == "importing alpaca-py ...\n"
            assert "widgets" in board.stderr.readline()  # the burst is about to begin
            board.send_signal(signal.SIGINT)
            told, progress = board.communicate(timeout=30)
        finally:
            board.kill()
        assert (board.returncode, told, progress) == (130, "", "price_board: interrupted\n")

    def test_an_interrupt_before_the_start(self, monkeypatch):
        """Who waits for the others then ends without a word: the main thread tells."""
        pytest.importorskip("alpaca")
        monkeypatch.syspath_prepend(str(EXAMPLES))
        module, raised = importlib.import_module("widgets"), []

        class Interrupted(threading.Barrier):
            def wait(self, timeout=None):
                if threading.current_thread() is not threading.main_thread():
                    return super().wait(timeout)
                until(lambda: self.n_waiting == self.parties - 1)
                self.abort()  # as a wait does that is interrupted
                raise KeyboardInterrupt

        monkeypatch.setattr(threading, "Barrier", Interrupted)
        monkeypatch.setattr(threading, "excepthook", raised.append)
        others, options = (
            set(threading.enumerate()),
            SimpleNamespace(widgets=4, mode="mixed", symbols=["ASML"]),
        )
        with pytest.raises(KeyboardInterrupt):
            module.burst("plain", None, options, told=lambda *_, **__: None)
        for thread in set(threading.enumerate()) - others:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert raised == []

    @pytest.mark.long
    def test_other_sizes(self):
        """Symbols named twice count once; crypto is a symbol like others."""
        done = run("price_board.py", "--latency", "0", "--widgets", "3", "--symbols", "asml,BTC/USD,ASML,XYZ")
        assert requests_made(done.stdout) == {"undecorated": 9, "decorated": 3}, done.stderr

    @pytest.mark.long
    def test_failures(self):
        """When every request fails the table and the log say so."""
        done = run("price_board.py", "--latency", "0", "--failures", "1")
        assert done.returncode == 0, done.stderr
        assert "no price" in done.stdout
        assert "WARNING [Account 1] Failed to fetch bid price for" in done.stdout
        assert "HTTP 500" in done.stdout

    @pytest.mark.parametrize(
        ("mode", "most"), one_in(3, [("threads", 2), ("tasks", 1), ("mixed", 2)], keep=1)
    )
    def test_the_board_in_bulk(self, mode, most):
        """Ten requests, and one instead of them; threads that meet in the same microsecond may make two."""
        done = run("price_board.py", "--bulk", "--latency=0.05", f"--mode={mode}")
        assert done.returncode == 0, done.stderr
        made = requests_made(done.stdout)
        assert made["undecorated"] == 10
        assert 1 <= made["decorated"] <= most
        assert "each in one call" in done.stdout
        assert "no price" not in done.stdout

    def test_an_outage_on_the_board(self, tmp_path):
        """Without grace the price is gone while the server fails; with it nobody notices, nor waits."""
        done = run("price_board.py", "--outage=1", "--latency=0.05", "--widgets=4", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        rows = re.findall(r"^ *[\d.]+ s  (up|DOWN) +\|(.*)\|(.*)$", done.stdout, re.MULTILINE)
        down = [(without, graced) for told, without, graced in rows if told == "DOWN"]
        assert any("no price" in without for without, _ in down)
        assert not any("no price" in graced for _, graced in down)
        assert any(" stale " in graced for _, graced in down)
        assert rows[-1][0] == "up"
        assert "no price" not in rows[-1][1] + rows[-1][2]
        assert re.search(r"^with grace: +0 of \d+ looks found no price", done.stdout, re.MULTILINE)
        assert "could not be renewed, its value is kept" in done.stdout
        assert widest(done.stdout) <= 80
        assert done.stderr == "importing alpaca-py ...\n"
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout)

    @pytest.mark.parametrize("more", one_in(2, ["--live", "--mode=tasks", "--bulk", "--latency=1"]))
    def test_an_outage_of_something_else(self, more):
        """It needs a server of ours, threads, and a latency that it can be told from."""
        done = run("price_board.py", "--outage", more, APCA_API_KEY_ID="key", APCA_API_SECRET_KEY="secret")
        assert done.returncode == 2
        assert "argument --outage: " in done.stderr

    @pytest.mark.long
    def test_a_rate_limit(self):
        """Undecorated the burst runs into the limit."""
        done = run("price_board.py", "--latency", "0", "--rate-limit", "5")
        assert "HTTP 429" in done.stdout, done.stderr

    @pytest.mark.parametrize(
        ("flag", "text"),
        one_in(
            3,
            [
                ("--mode", "processes"),
                ("--widgets", "0"),
                ("--widgets", "many"),
                ("--symbols", " ,"),
                ("--latency", "-1"),
                ("--latency", "nan"),
                ("--ttl", "inf"),
                ("--rate-limit", "0"),
                ("--failures", "1.5"),
                ("--outage", "0.5"),
                ("--save", "no/such/folder/page.html"),
                ("--save", "."),
                ("--store", "localhost"),
            ],
        ),
    )
    def test_bad_flags(self, flag, text):
        """They are named, with exit code 2 and without a traceback."""
        done = run("price_board.py", f"{flag}={text}")
        assert done.returncode == 2
        assert f"argument {flag}: " in done.stderr
        assert "Traceback" not in done.stderr
        assert "at_least" not in done.stderr

    def test_live_needs_credentials(self):
        """It says which."""
        done = run("price_board.py", "--live")
        assert done.returncode == 2
        assert "APCA_API_KEY_ID and APCA_API_SECRET_KEY" in done.stderr

    def test_live_with_unusable_credentials(self):
        """They are refused before anything is sent, and are not shown."""
        done = run("price_board.py", "--live", APCA_API_KEY_ID="key", APCA_API_SECRET_KEY="hush hush ")
        assert done.returncode == 1
        assert "APCA_API_SECRET_KEY" in done.stderr
        assert "hush" not in done.stderr
        assert "Traceback" not in done.stderr


class TestTheFleetOnTheBoard:
    """`--processes`: real ones, by a server that the board starts."""

    pytestmark = pytest.mark.usefixtures("needed")

    @pytest.fixture
    def needed(self):
        """Needs alpaca-py, a client library and a server's program."""
        pytest.importorskip("alpaca")
        needs_a_server()

    def test_processes_that_share(self, tmp_path):
        """As many requests as one process makes; without the store each process makes its own."""
        done = run("price_board.py", "--processes=2", "--store=local", "--latency=0.05", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert requests_made(done.stdout) == {"undecorated": 100, "decorated": 10, "shared": 5}
        assert "2 processes x 10 widgets x 5 symbols, at once, by 10 threads in each" in done.stdout
        assert "no price" not in done.stdout
        assert "Traceback" not in done.stderr

    @pytest.mark.long
    def test_a_server_that_is_not_there(self):
        """The board says so, instead of a table."""
        done = run("price_board.py", "--processes=2", "--store=redis://127.0.0.1:1")
        assert done.returncode == 1
        assert done.stdout == ""
        assert "price_board: --store: the server does not answer" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.long
    @pytest.mark.parametrize("mode", ["threads", "tasks", "mixed"])
    def test_a_leader_that_is_killed(self, mode):
        """What it had asked for is asked once more, and all other processes have all prices."""
        done = run("price_board.py", "--processes=4", "--store=local", "--kill-leader", f"--mode={mode}")
        assert done.returncode == 0, done.stderr
        killed = re.search(r"^Process \d+ was killed in its calls for (.*); the others wait", done.stdout)
        lost = len(killed[1].split(", "))
        made = requests_made(done.stdout)
        assert (made["shared"], made["leader killed"]) == (5, 5 + lost)
        assert "no price" not in done.stdout
        assert "Waiting for process" in done.stdout

    @pytest.mark.long
    def test_the_fleet_in_bulk(self):
        """One request for all symbols in the usual case; processes that meet in between share the symbols."""
        done = run("price_board.py", "--processes=3", "--store=local", "--bulk")
        assert done.returncode == 0, done.stderr
        assert 1 <= requests_made(done.stdout)["shared"] <= 5
        assert "no price" not in done.stdout

    @pytest.mark.parametrize(
        ("flag", "more"),
        [
            ("--processes=0", []),
            ("--store=local", []),
            ("--kill-leader", ["--processes=2"]),
            ("--kill-leader", ["--processes=2", "--store=local", "--bulk"]),
            ("--outage", ["--processes=2"]),
        ],
    )
    def test_flags_that_need_others(self, flag, more):
        """They are named, with exit code 2."""
        done = run("price_board.py", flag, *more)
        assert done.returncode == 2
        assert f"argument {flag.partition('=')[0]}: " in done.stderr


def needs_a_server():
    """Skip where no server can be started, but not in CI."""
    if not os.environ.get("CI"):
        pytest.importorskip("redis")
        if not binaries():
            pytest.skip("no Redis or Valkey server here")


NEEDS = {
    "fastapi_fleet": ("fastapi", "httpx", "uvicorn", "redis"),
    "fastapi_prices": ("fastapi", "httpx", "uvicorn"),
    "market_stream": ("msgpack", "websockets", "alpaca"),
}
ALL = sorted(path.stem for path in EXAMPLES.glob("*.py"))
PARTS = [name for name in ALL if "told_as_part(__doc__" in (EXAMPLES / f"{name}.py").read_text()]


@pytest.mark.parametrize("name", one_in(3, ALL))
def test_help(name):
    """Every example says what it is, in the first line of its docstring, and which flags it has."""
    for needed in NEEDS.get(name, ()):
        pytest.importorskip(needed)
    done = run(f"{name}.py", "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    first = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text())).partition("\n")[0]
    assert done.stdout.startswith(f"usage: {name}.py [-h]")
    assert first in " ".join(done.stdout.split())
    assert widest(done.stdout) <= 80


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_others(name, tmp_path):
    """A module that others import says what it is, and which commands show it."""
    done = run(f"{name}.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    commands = re.findall(r"^    python (\S+)", done.stdout, re.MULTILINE)
    assert commands
    assert {Path(command).stem for command in commands} < set(ALL) - set(PARTS)
    assert all(Path(command).is_file() for command in commands)


def test_a_flag_that_there_is_not():
    """It is an error, not ignored."""
    for name in PARTS[0], "etags", "http_fetch", "sqlite_report", "market_server":
        done = run(f"{name}.py", "--nonsense")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--nonsense" in done.stderr


def test_the_market_server():
    """It shows what it answers: a price, a refusal and the clock."""
    done = run("market_server.py", "--weekend")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^    (\d+) \{", done.stdout, re.MULTILINE) == ["200", "400", "200"]
    assert '"bp": 0' in done.stdout
    assert '"is_open": false' in done.stdout


@pytest.mark.long
def test_the_market_stream():
    """Prices come without a request."""
    for needed in NEEDS["market_stream"]:
        pytest.importorskip(needed)
    done = run("market_stream.py")
    assert done.returncode == 0, done.stderr
    assert "the stream sent 985.5, the getter has 985.5" in done.stdout
    assert done.stdout.endswith("0 requests were made\n")


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent in another way")
@pytest.mark.parametrize(
    ("name", "path", "found"),
    [
        ("fastapi_prices", "/prices/asml", '{"symbol":"ASML","price":984.75}'),
        ("market_server", "/v2/stocks/trades/latest?symbols=ASML", '"p": 984.75'),
    ],
)
def test_one_that_stays_up(name, path, found):
    """With `--serve` it tells its address, answers until Ctrl-C, and that is no error."""
    for needed in NEEDS.get(name, ()):
        pytest.importorskip(needed)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    process = started(f"{name}.py", "--serve")
    try:
        origin = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        for line in process.stdout:
            if "until you press Ctrl-C" in line:
                break
        for _ in range(2):
            with opener.open(f"{origin}{path}", timeout=20) as page:
                assert found in page.read().decode()
        if name == "fastapi_prices":
            for place in ("/prices/none", "/prices/%20", "/prices-in-a-thread/a%20b"):
                with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                    opener.open(f"{origin}{place}", timeout=20)
                refused.value.close()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")


def test_the_fastapi_prices_at_a_port_that_is_taken():
    """It says so, in one line."""
    for needed in NEEDS["fastapi_prices"]:
        pytest.importorskip(needed)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("fastapi_prices.py", "--serve", f"--port={port}")
    assert done.returncode == 1
    assert re.fullmatch(rf"fastapi_prices: --port {port}: .+\n", done.stderr)


def test_the_sqlite_report():
    """Twenty threads, one query; an invalidation makes the second."""
    done = run("sqlite_report.py")
    assert "1 query" in done.stdout, done.stderr
    assert "2 queries" in done.stdout


def test_the_http_fetch():
    """Thirty calls, three requests."""
    done = run("http_fetch.py")
    assert "30 calls, 3 requests" in done.stdout, done.stderr


def test_the_etags():
    """Three times twenty callers: the page, nothing new, the new page."""
    done = run("etags.py")
    assert done.returncode == 0, done.stderr
    answered = re.findall(
        r": 20 callers have \{'(.*)'\}, the server answered \[(\d+)\]$", done.stdout, re.MULTILINE
    )
    assert answered == [("version 1", "200"), ("version 1", "304"), ("version 2", "200")]


def test_the_fastapi_prices(tmp_path):
    """Forty requests at a service, undecorated and decorated."""
    for needed in ("fastapi", "httpx", "uvicorn"):
        pytest.importorskip(needed)
    done = run("fastapi_prices.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^undecorated +40 calls upstream, 40 x \$984\.75, ", done.stdout, re.MULTILINE)
    assert re.search(r"^decorated +1 calls upstream, 40 x \$984\.75, ", done.stdout, re.MULTILINE)
    seen = dict(re.findall(r"^ +(\d+) x Cache-Status: (.+)$", done.stdout, re.MULTILINE))
    statuses = {status: int(times) for times, status in seen.items()}
    assert (statuses["prices; fwd=bypass"], statuses["prices; fwd=miss; stored"]) == (40, 1)
    assert statuses["prices; fwd=miss; stored; collapsed"] + statuses.get("prices; hit", 0) == 39
    assert done.stderr == ""


def test_the_fastapi_fleet(tmp_path):
    """Workers that all are asked for all prices ask for each once, and not again within the ttl."""
    for needed in ("fastapi", "httpx", "uvicorn"):
        pytest.importorskip(needed)
    needs_a_server()
    done = run("fastapi_fleet.py", "--workers=2", "--browsers=40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^ +5 prices, (\d+) calls upstream$", done.stdout, re.MULTILINE) == ["5", "0"]
    assert re.findall(r"^.*: (\d+) pages by (\d+) workers", done.stdout, re.MULTILINE) == [("40", "2")] * 2
    seen = re.findall(r"^ +(\d+) x Cache-Status: (.+)$", done.stdout, re.MULTILINE)
    assert seen[-1] == ("40", "prices; hit")
    assert sum(int(times) for times, _ in seen) == 80
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("flag", "text"),
    one_in(2, [("--workers", "0"), ("--workers", "x"), ("--browsers", "-1"), ("--store", "here")]),
)
def test_bad_flags_of_the_fastapi_fleet(flag, text):
    """They are named, with exit code 2 and without a traceback."""
    for needed in NEEDS["fastapi_fleet"]:
        pytest.importorskip(needed)
    done = run("fastapi_fleet.py", f"{flag}={text}")
    assert done.returncode == 2
    assert f"argument {flag}: expected " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_fastapi_prices_without_fastapi(tmp_path):
    """It says what to install."""
    (tmp_path / "fastapi.py").write_text("raise ImportError('no fastapi here')")
    done = run("fastapi_prices.py", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert done.returncode == 1
    assert "pip install -e '.[web]'" in done.stderr
    assert "Traceback" not in done.stderr


class TestTheDesk:
    """Without a browser; with one see `test_desk.py`."""

    def test_without_nicegui(self, tmp_path):
        """It says what to install."""
        (tmp_path / "nicegui.py").write_text("raise ImportError('no nicegui here')")
        done = run("desk.py", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "desk: no nicegui here; install what it needs: pip install -e '.[desk]'\n"

    def test_a_port_that_is_taken(self):
        """It says so, in one line."""
        pytest.importorskip("alpaca")
        if find_spec("nicegui") is None:
            pytest.skip("nicegui is not installed")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = run("desk.py", f"--port={port}")
        assert done.returncode == 1
        assert re.fullmatch(rf"desk: --port {port}: .+\n", done.stderr)

    @pytest.mark.parametrize(("flag", "text"), [("--port", "66000"), ("--ttl", "0"), ("--latency", "x")])
    def test_bad_flags(self, flag, text):
        """They are named, with exit code 2."""
        done = run("desk.py", f"{flag}={text}")
        assert done.returncode == 2
        assert f"argument {flag}: " in done.stderr
