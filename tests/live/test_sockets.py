"""Who may look at a process, and when its socket is there."""

import errno
import json
import os
import socket
import stat
import sys
import threading

import pytest

from singleflight import live, single_flight_ttl
from singleflight.live import sockets
from singleflight.live.sockets import NotServed, ask, served
from singleflight.live.sockets import folder as folder_of

from ..children import in_child

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs unix sockets")


@pytest.fixture
def serving(folder):
    """`serve` in the test's own folder; ended with the test."""
    stops = []

    def begin(**options):
        stops.append(live.serve(folder, **options))
        return stops[-1]

    yield begin
    for stop in stops:
        stop()


def said(folder, line):
    """What is answered to a line."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(str(folder / f"{os.getpid()}.sock"))
        asking.sendall(line)
        with asking.makefile("rb") as answer:
            return json.loads(answer.readline())


def test_a_process_is_seen_from_the_call_to_its_end(serving, folder):
    """And not before, nor after; ending it twice does no harm."""
    assert served(folder) == []
    stop = serving()
    assert served(folder) == [os.getpid()]
    assert ask(os.getpid(), folder, want="snapshot")["snapshot"]["pid"] == os.getpid()
    assert ask(os.getpid(), folder, want="report")["report"].startswith("singleflight: ")
    stop()
    stop()
    assert list(folder.iterdir()) == []
    with pytest.raises(NotServed, match=f"process {os.getpid()} does not show itself"):
        ask(os.getpid(), folder, want="report")


def test_only_this_user_may_enter(serving, folder):
    """The socket is the user's alone, and a folder that others may enter is refused."""
    serving()
    assert stat.S_IMODE((folder / f"{os.getpid()}.sock").stat().st_mode) == 0o600
    open_folder = folder / "open"
    open_folder.mkdir(mode=0o755)
    open_folder.chmod(0o755)
    with pytest.raises(PermissionError, match=r"^directory: .* no one else may enter"):
        live.serve(open_folder)
    link = folder / "link"
    link.symlink_to(folder, target_is_directory=True)
    with pytest.raises(PermissionError, match=r"^directory: "):
        live.serve(link)
    assert served(folder) == [os.getpid()]  # nothing was changed by that


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel says who asks")
def test_another_user_is_not_answered(serving, folder, monkeypatch):
    """Even one that got in."""
    serving()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(str(folder / f"{os.getpid()}.sock"))
        if os.geteuid() == 0:  # the administrator may look at everybody's
            asking.sendall(b'{"want": "report"}\n')
            assert asking.recv(1)
        else:
            assert asking.recv(1) == b""


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"3\n",
        b'{"want": "stop"}\n',
        b'{"want": "snapshot", "entries": -1}\n',
        b'{"want": "snapshot", "entries": "all"}\n',
        b'{"want": "snapshot", "entries": 1000000}\n',
        b"\xff\xfe\n",
    ],
)
def test_what_is_no_question_is_refused(serving, folder, line):
    """And the next question is answered."""
    serving()
    assert said(folder, line)["error"].startswith("not a question: ")
    assert "report" in said(folder, b'{"want": "report"}\n')


def test_one_who_says_nothing_keeps_nobody_out(serving, folder):
    """It is let go of after a while; so is one who sends without an end."""
    serving()
    path = str(folder / f"{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as endless:
        silent.connect(path)
        endless.connect(path)
        endless.settimeout(20)
        with pytest.raises(OSError):
            while True:
                endless.sendall(b"x" * 500)
        assert "report" in said(folder, b'{"want": "report"}\n')


def test_values_only_where_the_process_allows_it(serving, folder):
    """A question for them is refused, not answered without."""
    fetch = single_flight_ttl(ttl=60, name="valued")(lambda key: "secret")
    fetch(1)
    question = b'{"want": "snapshot", "entries": 1000, "values": true}\n'
    serving()
    assert "does not show values" in said(folder, question)["error"]
    serving(values=True)
    assert "secret" in json.dumps(said(folder, question)["snapshot"])
    assert served(folder) == [os.getpid()]


def test_a_forked_child_shows_itself(serving, folder):
    """On a socket of its own; the parent's stays."""
    serving()

    def look():
        return os.getpid(), ask(os.getpid(), folder, want="snapshot")["snapshot"]["pid"]

    child, seen = eval(in_child(look))
    assert child == seen != os.getpid()
    assert ask(os.getpid(), folder, want="snapshot")["snapshot"]["pid"] == os.getpid()


def test_what_a_killed_process_left_is_cleaned_up(shown):
    """It is not listed, and asking for it says so."""
    assert served(shown.folder) == [shown.pid]
    shown.end()
    assert served(shown.folder) == []
    with pytest.raises(NotServed):
        ask(shown.pid, shown.folder, want="report")
    assert os.listdir(shown.folder) == []


def test_what_is_left_is_cleaned_up_unless_somebody_listens(folder):
    """A process that cannot be seen from here, as one of another container, keeps its socket."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as left:
        for each, name in ((listening, "999999998.sock"), (left, "999999999.sock")):
            each.bind(str(folder / name))
        listening.listen()
        left.close()
        assert served(folder) == []
        assert os.listdir(folder) == ["999999998.sock"]


def test_looking_makes_no_folder(folder, monkeypatch):
    """A folder that was named and is not there is an error, the usual one may be missing."""
    with pytest.raises(FileNotFoundError, match=r"^directory: there is no folder "):
        served(folder / "misspelt")
    with pytest.raises(FileNotFoundError, match=r"^directory: "):
        ask(1, folder / "misspelt", want="report")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    assert served() == []
    with pytest.raises(NotServed):
        ask(999999999, want="report")
    assert os.listdir(folder) == []


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may become somebody")
def test_the_administrator_may_look_into_another_users_folder(serving, folder):
    """But nobody else may, and root serves only in a folder of its own, and removes nothing elsewhere."""
    serving()
    left = folder / "999999999.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left))
    os.chown(folder, 12345, 12345)
    try:
        assert served(folder) == [os.getpid()]
        assert ask(os.getpid(), folder, want="snapshot")["snapshot"]["pid"] == os.getpid()
        assert left.exists()
        with pytest.raises(PermissionError, match=r"^directory: .* of this user"):
            live.serve(folder)
    finally:
        os.chown(folder, 0, 0)


def test_another_users_folder_is_refused(folder, monkeypatch):
    """To look into, as well."""
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    for look in (served, lambda place: ask(1, place, want="report"), live.serve):
        with pytest.raises(PermissionError, match=r"^directory: .* of this user"):
            look(folder)


def test_a_serve_that_fails_changes_nothing(serving, folder):
    """The one before goes on, if it was going on."""
    stop = serving()
    for directory, options in (
        (folder / ("d" * 120), {}),
        (5, {}),
        (folder, {"values": "no"}),
    ):
        with pytest.raises((OSError, TypeError), match=r"^directory: |^values: |directory: too long"):
            live.serve(directory, **options)
        assert "report" in said(folder, b'{"want": "report"}\n')
    stop()
    with pytest.raises(OSError, match="too long"):
        live.serve(folder / ("d" * 120))
    assert served(folder) == []


def test_an_address_that_is_too_long(folder):
    """It is refused with the name of the argument, and nothing listens."""
    deep = folder / ("d" * 120)
    before = set(threading.enumerate())  # some of which may end meanwhile: they are other tests'
    with pytest.raises(OSError, match="directory: too long"):
        live.serve(deep)
    assert set(threading.enumerate()) <= before


def test_the_usual_folder(monkeypatch, tmp_path):
    """Below `XDG_RUNTIME_DIR`, or else among the temporary files, named after the user."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert folder_of() == tmp_path / "singleflight"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert folder_of() == tmp_path / f"singleflight-{os.getuid()}"
    assert stat.S_IMODE(folder_of().stat().st_mode) == 0o700


def test_a_process_without_files_is_seen_when_it_has_some_again(serving, folder, monkeypatch):
    """What accepts a question may fail for a while; the process is shown afterwards."""
    monkeypatch.setattr(sockets, "_PAUSE", 0.001)
    troubles = [getattr(errno, name) for name in ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED")]
    accept = socket.socket.accept

    def failing(listening):
        if troubles and listening.family == socket.AF_UNIX:
            raise OSError(troubles.pop(), "as if")
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", failing)
    serving()
    assert ask(os.getpid(), folder, want="snapshot")["snapshot"]["pid"] == os.getpid()
    assert troubles == []
