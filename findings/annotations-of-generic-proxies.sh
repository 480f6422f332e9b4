#!/usr/bin/env bash
# CPython 3.11 to 3.13 with wrapt 2.5.2: a look at the annotations of an unrelated generic class empties those of proxies.
#
# A proxy class that has typing.Generic before wrapt's ObjectProxy among its bases, as a typed decorator has, shows the
# annotations of the function that it wraps. It does so until anybody in the process reads
# `typing.Generic.__annotations__`, which the usual loop over a class and its bases does:
# `getattr(base, "__annotations__", {})`. From then on `__annotations__` is `{}` on every such proxy, also those made
# earlier, and typing.get_type_hints() gives nothing.
#
# A good guess gets it wrong because reading an attribute seems to change nothing. Up to CPython 3.13, `type.__annotations__`
# puts a new empty dict into a class that has none at the first read. The look-up of an instance's attribute goes through
# the class dicts in order, so that dict of Generic hides the property that wrapt has further on. With Generic after
# the proxy the property is found first, and nothing happens.
#
# Output seen, on 3.11.7, 3.12.1 and 3.13.0:
#
#     before: {'symbol': <class 'str'>, 'return': <class 'float'>} and the same hints
#     fields of Box: ['size']
#     after: {} and no hints
#     Generic last: {'symbol': <class 'str'>, 'return': <class 'float'>}
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check wrapt==2.5.2
"$folder/venv/bin/python" - <<'PROGRAM'
import typing

import wrapt

T = typing.TypeVar("T")
HINTS = {"symbol": str, "return": float}


class Decorated(typing.Generic[T], wrapt.CallableObjectProxy):
    """A typed decorator's result."""


class GenericLast(wrapt.CallableObjectProxy, typing.Generic[T]):
    """The same bases in the other order."""


class Box(typing.Generic[T]):
    """Has nothing to do with either."""

    size: int


def price(symbol: str) -> float:
    return 984.75


early, last = Decorated(price), GenericLast(price)
assert early.__annotations__ == typing.get_type_hints(early) == HINTS
print("before:", early.__annotations__, "and the same hints")

fields = [name for base in Box.__mro__ for name in getattr(base, "__annotations__", {})]
assert fields == ["size"]
print("fields of Box:", fields)

assert early.__annotations__ == Decorated(price).__annotations__ == {}
assert typing.get_type_hints(early) == {}
print("after:", early.__annotations__, "and no hints")

assert last.__annotations__ == price.__annotations__ == HINTS
print("Generic last:", last.__annotations__)
PROGRAM
