"""What holds where wrapt has no C extension: for some builds, such as free-threaded ones, it has no wheel."""

import os
import subprocess
import sys
import textwrap

PROGRAM = """
import pickle, pydoc
import singleflight
from singleflight import single_flight_ttl

@single_flight_ttl(ttl=60)
def price(symbol):
    "The price of a symbol."
    return 984.75

@price.bulk
def prices(symbols):
    "Many prices."
    return dict.fromkeys(symbols, 984.75)

class Source:
    def prices(self, symbols):
        assert self is source
        return dict.fromkeys(symbols, 984.75)

class Account:
    @single_flight_ttl(ttl=60)
    def price(self, symbol):
        return 984.75

source = Source()
Account.prices = price.bulk(source.prices)

if __name__ == "__main__":
    assert not singleflight.accelerated
    assert [price("A"), price(symbol="A"), Account().price("A")] == [984.75] * 3
    assert price.__module__ == Account.price.__module__ == "__main__"
    assert prices(["A", "B"]) == Account().prices(["A", "B"]) == {"A": 984.75, "B": 984.75}
    assert pickle.loads(pickle.dumps((price, prices))) == (price, prices)
    assert len(pickle.dumps(price)) < 100, "by reference"
    assert "ttl=60" in pydoc.render_doc(price) and "ttl=60" in pydoc.render_doc(prices)
    assert type(prices).__doc__.startswith("A function that loads many keys")
    print(price.stats())
"""


def test_without_its_extension_everything_works(tmp_path):
    """In Python alone: a class of these that C made would be refused, or lack what wrapt puts into it.

    With wrapt 2.5.2 on Python 3.11 and 3.12 a bound method in a class was bound anew:
    findings/wrapt-bound-methods-move-without-c.sh
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env={**os.environ, "WRAPT_DISABLE_EXTENSIONS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hits=" in done.stdout
