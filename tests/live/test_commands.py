"""`python -m singleflight`, as users run it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from singleflight.__main__ import main
from singleflight.live import demo, screen

from .conftest import PATIENCE, command, loaded


def test_top_shows_functions_and_flights(shown):
    """Once, in a pipe: each function with its numbers, each flight with its leader."""
    done = shown.run("top", "--once", "--interval", "0.05")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 functions: 4 calls received, 3 runs, 1 in progress\n")
    lines = done.stdout.splitlines()
    assert lines[2].split() == ["pid", *list(screen.COLUMNS.values())[1:]]
    (quick,) = [line.split() for line in lines if " quick " in line]
    assert quick == [str(shown.pid), "quick", "0.0", "33%", "3", "0", "2", "0", "0", "-", "2"]
    (slow,) = [line.split() for line in lines if re.match(rf" *{shown.pid} +slow ", line)]
    assert slow[3:9] == ["0%", "1", "0", "1", "1", "1"]
    assert re.search(r"\d\.\d s █+ slow 'monthly': call by thread 'the leader'", done.stdout)


def test_report_of_a_process(shown):
    """The text of `report()`, or data, or entries; values only where the process allows it."""
    assert "slow 'monthly': call by thread 'the leader'" in shown.run("report", shown.pid).stdout
    told = loaded(shown.run("report", shown.pid, "--json"))
    assert told["pid"] == shown.pid
    assert {f["name"]: f["calls"] for f in told["functions"]} == {"quick": 2, "slow": 1}
    entries = shown.run("report", shown.pid, "--entries", "5").stdout
    assert re.search(r"1 hits, .* old, fresh +\('a',\)\n", entries)
    assert "value of" not in entries
    refused = shown.run("report", shown.pid, "--entries", "5", "--values")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "does not show values" in refused.stderr


def test_report_with_values(open_handed):
    """Where the process has said that it may."""
    entries = open_handed.run("report", open_handed.pid, "--entries", "5", "--values").stdout
    assert re.search(r"1 hits, .* old, fresh +\('a',\) = 'value of a'\n", entries)


def test_nobody_shows_itself(folder):
    """One line says what to do."""
    for arguments in (["top", "--once"], ["report", "999999999"]):
        done = command(*arguments, "--directory", folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1
        assert "call singleflight.live.serve() in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (["stop"], "invalid choice"),
        (["report"], "pid"),
        (["report", "x"], "expected the number of a process, got 'x'"),
        (["report", "1.5"], "expected the number of a process, got '1.5'"),
        (["report", "1", "--entries", "0"], "expected a whole number from 1 to 1000, got '0'"),
        (["report", "1", "--values"], "argument --values: needs --entries"),
        (["top", "--interval", "0"], "expected seconds, from 0.05 to 3600, got '0'"),
        (["top", "--sort", "colour"], "invalid choice"),
        (["top", "--sort", "hit_rate"], "argument --sort: invalid choice"),
        (["demo", "--speed", "nan"], "expected a number from 0.1 to 100, got 'nan'"),
    ],
)
def test_bad_arguments(arguments, told, capsys):
    """They are refused in a line that names them."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_help_names_every_command(capsys):
    """For all of them, and for each."""
    done = command("--help")
    assert done.returncode == 0
    for name in ("top", "report", "demo"):
        assert name in done.stdout
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert f"python -m singleflight {name}" in capsys.readouterr().out


def test_the_demonstration():
    """In a pipe: three pictures, 50 requests against 5, nobody without a price, and no control characters."""
    done = command("demo", "--speed", "10")
    assert done.returncode == 0, done.stderr
    requests = [int(number) for number in re.findall(r"^  requests .* (\d+)$", done.stdout, re.MULTILINE)]
    prices = re.findall(r"^  prices .* (\d+ of \d+.*)$", done.stdout, re.MULTILINE)
    assert requests[:2] == [50, 5]
    assert prices == ["50 of 50", "200 of 200", "200 of 200"]
    assert "200 made do with the last one" in done.stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout)
    assert max(map(len, done.stdout.splitlines())) < 80


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self):
        return True


def test_a_picture_is_drawn_in_its_place():
    """On a terminal each one goes back over the one before."""
    out = Terminal()
    picture = demo.Picture(out)
    picture.draw(["a", "b"])
    picture.draw(["c", "d"], last=True)
    assert out.getvalue() == "a\x1b[K\nb\x1b[K\n\x1b[2Ac\x1b[K\nd\x1b[K\n"


def test_a_demonstration_that_takes_too_long():
    """It says so, and ends."""
    out = io.StringIO()
    assert demo.run(out, speed=100, most=0.0) == 1
    assert "this takes too long" in out.getvalue()


def function(name, received=0, flights=(), **numbers):
    """What a snapshot tells of a function."""
    fields = ("waits", "calls", "failures", "in_flight", "number_of_entries")
    told = {
        "name": name,
        "id": name,
        "received": received,
        "hit_rate": 0.5,
        **dict.fromkeys(fields, 0),
        **numbers,
    }
    return {**told, "flights": list(flights), "flights_left_out": 0}


def process(time, *functions, left_out=0):
    """A snapshot."""
    return {"time": time, "functions": list(functions), "functions_left_out": left_out}


def flight(key, elapsed, **told):
    """What it tells of a flight."""
    usual = {"leader": "thread 'x'", "followers": 0, "kind": "call", "detached": False, "queued": False}
    return {"key": key, "elapsed": elapsed, **usual, **told}


def test_rates_are_differences():
    """By the processes' own time; a function that was counted anew, or is new, has none."""
    before = {1: process(10.0, function("a", 100), function("b", 50))}
    now = {1: process(12.0, function("a", 140), function("b", 3), function("c", 9)), 2: process(5.0)}
    rates = {row["name"]: row["rate"] for row in screen.rows(now, before, "rate")}
    assert rates == {"a": 20.0, "b": 0.0, "c": 0.0}
    assert screen.rows(now, before, "rate")[0]["name"] == "a"
    assert [row["name"] for row in screen.rows(now, before, "name")] == ["a", "b", "c"]


def test_a_screen_is_never_larger_than_the_terminal():
    """Long names are cut, what has no room is counted."""
    functions = [function("n" * 200 + str(n), n, [flight("k" * 200, n + 1.0)]) for n in range(50)]
    text = screen.plain({1: process(1.0, *functions, left_out=3)}, {}, "received", width=80, height=20)
    lines = text.splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert "(3 more are not shown)" in lines[0]
    assert any(re.fullmatch(r"\.\.\. \d+ more", line) for line in lines)
    assert any(re.fullmatch(r"\.\.\. \d+ more in progress", line) for line in lines)


@pytest.mark.parametrize(
    ("width", "sort", "missing"),
    [
        (120, "rate", set()),
        (80, "rate", {"entries", "longest", "running"}),
        (80, "longest", {"entries", "running", "waits"}),
        (55, "rate", {"entries", "longest", "waits", "running", "failed"}),
    ],
)
def test_a_narrow_screen_has_room_for_names(width, sort, missing):
    """Columns are left out for it, never the one that it is sorted by; of a long name the end is shown."""
    seen = {12345: process(1.0, function("shop.prices.service.get_price", 1_000_000))}
    lines = screen.plain(seen, {}, sort, width=width).splitlines()
    assert set(screen.COLUMNS.values()) - set(lines[2].split()) == missing
    assert ".get_price " in lines[3]
    assert max(map(len, lines)) <= width


def test_a_long_key_leaves_room_for_those_who_wait():
    """Who makes the call and how many wait for it is what one looks for."""
    text = screen.plain(
        {1: process(1.0, function("a", flights=[flight("'" + "k" * 198 + "'", 1, followers=7)]))},
        {},
        width=80,
    )
    line = text.splitlines()[-1]
    assert line.endswith("…: call by thread 'x', 7 waiting")
    assert len(line) == 80


def test_nothing_shown_steers_the_terminal(capsys, monkeypatch):
    """A name, a key, a thread's name and a message of another process are written with escapes."""
    steering = "a\x1b]0;owned\x07\nb\u202e\ud800"
    told = process(1.0, function(steering, flights=[flight(steering, 1.0, leader=steering)], hits=1))
    entry = {"key": steering, "value": steering, "hits": 1, "age": 0.0, "state": "fresh"}
    told["functions"][0]["entries"] = [entry]
    answers = {"snapshot": told, "report": steering}
    monkeypatch.setattr("singleflight.live.sockets.ask", lambda *_, **__: answers)
    monkeypatch.setattr("singleflight.live.screen.ask", lambda *_, **__: answers)
    for arguments in (
        ["report", "1"],
        ["report", "1", "--entries", "3", "--values"],
        ["top", "1", "--once", "--interval", "0.05"],
    ):
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert "\\x1b]0;owned\\x07" in shown
        assert all(line.isprintable() for line in shown.split("\n"))

    def refused(*_, **__):
        raise RuntimeError(steering)

    monkeypatch.setattr("singleflight.live.sockets.ask", refused)
    assert main(["report", "1"]) == 1
    assert capsys.readouterr().err.strip().isprintable()


def test_functions_of_one_name_have_rates_of_their_own():
    """They are told apart by their `id`."""
    before = {1: process(0.0, {**function("a", 900), "id": 1}, {**function("a", 10), "id": 2})}
    now = {1: process(1.0, {**function("a", 905), "id": 1}, {**function("a", 30), "id": 2})}
    assert [row["rate"] for row in screen.rows(now, before, "rate")] == [20.0, 5.0]


def test_a_process_that_does_not_answer(shown, folder, monkeypatch):
    """Said by `top`, which shows what it saw of it last, and the others at once."""
    monkeypatch.setattr("singleflight.live.screen._PATIENCE", 0.2)
    now, missing = screen.sample([], str(folder))
    assert (list(now), missing) == ([shown.pid], [])
    os.kill(shown.pid, signal.SIGSTOP)
    end = time.monotonic() + PATIENCE
    while os.waitpid(shown.pid, os.WUNTRACED | os.WNOHANG)[0] == 0:  # it runs until the kernel comes to it
        assert time.monotonic() < end
        time.sleep(0.001)
    try:
        later, missing = screen.sample([], str(folder), now)
        assert later == now
        assert missing == [f"process {shown.pid} does not answer: timed out"]
        assert missing[0] in screen.plain(later, now, notes=missing).splitlines()
        assert screen.sample([], str(folder)) == ({}, missing)
    finally:
        os.kill(shown.pid, signal.SIGCONT)


def test_a_terminal_that_has_few_characters():
    """What its encoding lacks is written as a question mark."""
    done = command("demo", "--speed", "50", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "?????" in done.stdout


def test_a_reader_that_has_seen_enough():
    """A closed pipe ends a command without a message."""
    asking = subprocess.Popen(
        [sys.executable, "-m", "singleflight", "demo", "--speed", "50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert asking.stdout.readline().startswith("40 callers")
    asking.stdout.close()
    assert asking.stderr.read() == ""
    assert asking.wait(30) == 1
    asking.stderr.close()


def test_flights_are_shown_longest_first():
    """Of all processes, with who waits and what is odd about them."""
    one = process(1.0, function("a", flights=[flight("'x'", 1.0), flight("'y'", 4.0, followers=3)]))
    two = process(1.0, function("b", flights=[flight("'z'", 2.0, detached=True, queued=True)]))
    text = screen.plain({1: one, 2: two}, {})
    assert text.startswith("2 processes, 2 functions: ")
    found = [line.split(" s ", 1) for line in text.splitlines() if " call by " in line]
    assert [float(seconds) for seconds, _ in found] == [4.0, 2.0, 1.0]
    assert found[0][1].startswith("██████████ a 'y': call by thread 'x', 3 waiting")
    assert found[1][1].startswith("█████      b 'z': call by thread 'x', detached, queued")


def test_the_live_screen(shown, monkeypatch):
    """With rich, on a terminal: it is drawn anew each time, and ends when the process has ended."""
    pytest.importorskip("rich")
    out = Terminal()
    drawn = []
    monkeypatch.setattr("rich.live.Live.update", lambda self, text, refresh: drawn.append(text.plain))
    monkeypatch.setattr("rich.live.Live.start", lambda self, refresh=False: None)
    monkeypatch.setattr("rich.live.Live.stop", lambda self: None)

    def pause(_):
        if len(drawn) == 2:
            shown.end()

    assert screen.run([shown.pid], shown.folder, 1.0, "rate", once=False, out=out, pause=pause) == 0
    assert len(drawn) == 2
    assert all(text.startswith("2 functions: 4 calls received") for text in drawn)


def test_json_is_all_there_is(shown):
    """What `--json` writes is what `snapshot` returns."""
    told = json.loads(shown.run("report", shown.pid, "--json", "--entries", "1").stdout)
    assert told.keys() == {"pid", "program", "time", "functions", "functions_left_out"}
    assert all("entries" in function for function in told["functions"])
