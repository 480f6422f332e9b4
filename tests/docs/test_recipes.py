"""Recipes of the how-to guides in the processes that they are for: gunicorn, Celery, Streamlit, IPython."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..redis.server import Server, binaries, free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback, also where a proxy is set
SHOWN_SERVER = "redis://localhost:6379"

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="these workers fork"),
    pytest.mark.timeout(300),  # whole interpreters with large libraries, some of them one after another
]


def needs(*libraries):
    """Skip without these libraries; the session `peers` has them all."""
    missing = [name for name in libraries if find_spec(name) is None]
    assert not (missing and os.environ.get("PEERS")), missing
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def blocks(page, section):
    """The Python blocks of a section of a how-to page."""
    text = (ROOT / "docs/howto" / page).read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```python\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)


def write(folder, page, section, **replaced):
    """Write the section's files, each named by its first line, with some texts replaced."""
    for block in blocks(page, section):
        for text, other in replaced.items():
            block = block.replace(text, other)
        (folder / re.match(r"# (\S+\.py)\n", block)[1]).write_text(block, encoding="utf-8")


def run(folder, *command):
    """Run a command to its end, as outside of a test, and return what it printed."""
    outside = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**outside, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def running(folder, *command):
    """A process group of its own, whose output goes to `log`; whatever is left of it is killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def until(true, folder, what):
    """Ask until it is true. Fails loudly, with the log."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"{what}\n{(folder / 'log').read_text()}"
        time.sleep(0.02)  # other processes: nothing tells that


@pytest.fixture
def server():
    """A Redis or Valkey server."""
    found = binaries()
    if not found and not os.environ.get("CI"):
        pytest.skip("no Redis or Valkey server here")
    server = Server(next(iter(found.values())))
    yield server
    server.close()


def answers_of_both(folder, port, symbol):
    """Ask for a symbol, many times at once, until two workers have answered. Return all answers."""
    answers = []

    def ask(_):
        with DIRECT.open(f"http://127.0.0.1:{port}/quote/{symbol}", timeout=PATIENCE) as response:
            return json.load(response)

    def both():
        with contextlib.suppress(OSError), ThreadPoolExecutor(20) as pool:
            answers.extend(pool.map(ask, range(40)))
        return len({answer["answered_by"] for answer in answers}) == 2

    until(both, folder, "both workers answer")
    return answers


@needs("flask", "gunicorn")
class TestGunicorn:
    """The two files of the guide, with two workers."""

    SECTION = "Serve Flask with gunicorn"
    SHARED = "Share calls between gunicorn's workers"

    def test_workers_begin_with_what_the_first_process_fetched(self, tmp_path):
        """Neither worker calls for what was fetched before the fork; each fetches another symbol once."""
        port = free_port()
        write(tmp_path, "workers.md", self.SECTION, **{"127.0.0.1:8000": f"127.0.0.1:{port}"})
        with running(tmp_path, sys.executable, "-m", "gunicorn") as gunicorn:
            warm = answers_of_both(tmp_path, port, "ASML")
            assert {answer["fetched_by"] for answer in warm} == {gunicorn.pid}
            assert {answer["calls"] for answer in warm} == {0}
            cold = answers_of_both(tmp_path, port, "ING")
            assert all(answer["fetched_by"] == answer["answered_by"] for answer in cold)
            assert {answer["calls"] for answer in cold} == {1}
            gunicorn.terminate()
            assert gunicorn.wait(PATIENCE) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()

    @needs("redis")
    def test_workers_share_by_the_store(self, tmp_path, server):
        """One worker has called for both; they stop in an orderly way."""
        port = free_port()
        texts = {"127.0.0.1:8000": f"127.0.0.1:{port}", SHOWN_SERVER: server.url}
        write(tmp_path, "workers.md", self.SHARED, **texts)
        with running(tmp_path, sys.executable, "-m", "gunicorn") as gunicorn:
            answers = answers_of_both(tmp_path, port, "ASML")
            assert len({answer["fetched_by"] for answer in answers}) == 1
            gunicorn.terminate()
            assert gunicorn.wait(PATIENCE) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()


WATCHED = """
import os
import time
from pathlib import Path

from singleflight import current_flight


@app.task
def counts(symbol):
    return os.getpid(), quote(symbol), quote.stats().calls


@single_flight_ttl(ttl=1e-6, grace=600)
def slow_to_renew():
    if current_flight().kind == "refresh":
        Path("begun").touch()
        end = time.monotonic() + 20
        while not Path("stopping").exists() and time.monotonic() < end:
            time.sleep(0.02)
        Path("renewed").touch()
    return 1


@app.task
def begin_a_renewal():
    slow_to_renew(), slow_to_renew()


quote("ASML")
"""
ASKING = """
from tasks import begin_a_renewal, counts, worth

assert worth.delay("ASML", 2).get(timeout=30) == 1969.5
for symbol, calls in [("ASML", 0), ("ING", 1), ("ING", 1)]:
    process, price, made = counts.delay(symbol).get(timeout=30)
    assert (price, made) == (984.75, calls), (process, made)
begin_a_renewal.delay().get(timeout=30)
"""


@needs("celery", "redis")
def test_celery(tmp_path, server):
    """A child begins with what its parent fetched, calls once for the rest, and ends its renewals first."""
    write(tmp_path, "workers.md", "Use it in Celery tasks", **{SHOWN_SERVER: server.url})
    with (tmp_path / "tasks.py").open("a") as tasks:
        tasks.write(WATCHED)
    worker = ("-m", "celery", "-A", "tasks", "worker", "-c", "1", "-l", "WARNING")
    with running(tmp_path, sys.executable, *worker) as celery:
        run(tmp_path, sys.executable, "-c", ASKING)
        until((tmp_path / "begun").exists, tmp_path, "a renewal begins")
        celery.terminate()
        until(lambda: "Warm shutdown" in (tmp_path / "log").read_text(), tmp_path, "the worker stops")
        (tmp_path / "stopping").touch()
        assert celery.wait(PATIENCE) == 0
    assert (tmp_path / "renewed").exists()


VISITS = """
import sys
from streamlit.testing.v1 import AppTest

def told(app):
    assert not app.exception, app.exception
    return [text.value for text in app.text]

first, second = (AppTest.from_file(sys.argv[1], default_timeout=50) for _ in range(2))
seen = [told(first.run()), told(first.button[0].click().run()), told(second.run())]
assert seen == eval(sys.argv[2]), seen
"""
DECORATED_THREE_TIMES = """
import streamlit as st
from prices import price
from singleflight import single_flight_ttl


@single_flight_ttl(ttl=60)
def decorated_here(symbol):
    return 984.75


price("ASML"), decorated_here("ASML")
st.button("Again")
st.text(f"{price.stats().hits} {decorated_here.stats().hits}")
"""


@needs("streamlit")
class TestStreamlit:
    """Streamlit's own runner of scripts: a visit, a click, another visitor."""

    def test_below_cache_resource(self, tmp_path):
        """The guide's script makes one call for all of them."""
        (script,) = blocks("interactive.md", "Use it under Streamlit")
        (tmp_path / "app.py").write_text(script)
        run(tmp_path, sys.executable, "-c", VISITS, "app.py", repr([["1 call for all visitors"]] * 3))

    def test_in_a_module(self, tmp_path):
        """An imported function keeps its entries; one of the script has none at each run."""
        module = "from singleflight import single_flight_ttl\n\n\nprice = single_flight_ttl(ttl=60)(len)\n"
        (tmp_path / "prices.py").write_text(module)
        (tmp_path / "app.py").write_text(DECORATED_THREE_TIMES)
        run(tmp_path, sys.executable, "-c", VISITS, "app.py", repr([["0 0"], ["1 0"], ["2 0"]]))


SCRIPT = """
from nicegui import ui
from prices import price
from singleflight import single_flight_ttl


@single_flight_ttl(ttl=60)
def decorated_here(symbol):
    return 984.75


price("ASML"), decorated_here("ASML")
ui.label(f"{price.stats().hits} {decorated_here.stats().hits}")
ui.run()
"""
THREE_VISITS = """
import asyncio
import sys

sys.argv = ["board.py"]  # NiceGUI runs this again for each visit
from nicegui import ui
from nicegui.testing import user_simulation


async def visits():
    async with user_simulation(main_file="board.py") as visitor:
        for _ in range(3):
            await visitor.open("/")
            yield [label.text for label in visitor.find(kind=ui.label).elements]


async def main():
    hits_in_module, hits_in_script = zip(*[text.split() async for (text,) in visits()])
    assert list(hits_in_module) == sorted(set(hits_in_module), key=int), hits_in_module  # one more each time
    assert set(hits_in_script) == {"0"}, hits_in_script


asyncio.run(main())
"""


@needs("nicegui")
def test_a_nicegui_script(tmp_path):
    """A script without pages is run for each visit: its functions begin empty, those of a module do not."""
    module = "from singleflight import single_flight_ttl\n\n\nprice = single_flight_ttl(ttl=60)(len)\n"
    (tmp_path / "prices.py").write_text(module)
    (tmp_path / "board.py").write_text(SCRIPT)
    run(tmp_path, sys.executable, "-c", THREE_VISITS)


NOTEBOOK = """
import os
import sys
import time
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

sys.dont_write_bytecode = True
sys.path.insert(0, ".")
module, text = Path("prices.py"), Path("prices.py").read_text()
shell = InteractiveShell.instance()


def cell(code):
    result = shell.run_cell(code, store_history=True)
    result.raise_error()
    return result.result


shell.run_line_magic("load_ext", "autoreload")
shell.run_line_magic("autoreload", "2")
cell("import prices")
assert cell("prices.price('ASML')") == 1
module.write_text(text.replace("return 1", "return 2").replace("ttl=60", "ttl=61"))
os.utime(module, (time.time() + 5,) * 2)  # a later change, whatever the clock of the files says
cell("prices.price.clear()")
assert cell("prices.price('ASML')") == 2
cell("import importlib; importlib.reload(prices)")
assert cell("prices.price('ASML'), prices.price.cache_parameters()['ttl']") == (2, 61)

define = '''
from singleflight import single_flight_ttl

@single_flight_ttl(ttl=60)
def history(symbol):
    return 984.75
'''
cell(define)
assert cell("history('ASML'), history('ASML'), history.stats().calls") == (984.75, 984.75, 1)
cell(define)
assert cell("history.entry('ASML'), history.stats().calls") == (None, 0)
cell("import asyncio")
cell(define.replace("def history", "async def history"))
assert cell("await history('ASML')") == cell("await history('ASML')") == 984.75
assert cell("history.stats().calls") == 1
"""


@needs("IPython")
def test_a_notebook(tmp_path):
    """A cell that is run again has a new function; autoreload gives a cleared one its new body."""
    (tmp_path / "prices.py").write_text(
        "from singleflight import single_flight_ttl\n\n\n"
        "@single_flight_ttl(ttl=60)\ndef price(symbol):\n    return 1\n"
    )
    run(tmp_path, sys.executable, "-c", NOTEBOOK)
