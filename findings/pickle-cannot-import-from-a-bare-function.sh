#!/usr/bin/env bash
# CPython 3.11 to 3.13: in a function whose globals have no `__builtins__` everything works but C functions that import.
#
# `types.FunctionType(code, {...})` makes a function with globals of its own, as libraries do that compile or copy functions.
# Its builtins work, and so does an `import` statement in it. But `pickle.dumps`, called straight from it, cannot pickle an
# instance of a class that it pickles from anywhere else, and the first call of `time.strptime` in the process raises
# KeyError. With a Python function in between, a lambda for instance, both work.
#
# A good guess gets it wrong because the function shows that it has builtins (`bare.__builtins__` is the usual dict), and because the
# message speaks of the class: "import of module '__main__' failed". Python code finds builtins on the function. C code that
# imports (`PyImport_Import`) looks for the key `__builtins__` in the globals of the nearest Python frame. `exec` puts it there;
# `types.FunctionType` does not.
#
# Output seen, on 3.11.7, 3.12.1 and 3.13.0:
#
#     builtins and import statements: 3 json
#     pickled from a lambda: True
#     pickle.dumps: PicklingError: Can't pickle <class '__main__.Order'>: import of module '__main__' failed
#     time.strptime: KeyError: '__builtins__'
#     with __builtins__ in the globals: True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/program.py" <<'PROGRAM'
import builtins
import pickle
import time
import types


class Order:
    """Anything that is pickled by its class's name."""


def copied(function, **names):
    """The same code with these globals and no others."""
    return types.FunctionType(function.__code__, names)


def usual(text):
    import json

    return f"{len(text)} {json.__name__}"


def pickled(order):
    return dumps(order)


def year(text):
    return strptime(text, "%Y")


print("builtins and import statements:", said := copied(usual)("abc"))
assert said == "3 json"

bare, order = copied(pickled, dumps=pickle.dumps), Order()
assert bare.__builtins__ is vars(builtins)
by_lambda = copied(pickled, dumps=lambda order: pickle.dumps(order))(order)
print("pickled from a lambda:", by_lambda == pickle.dumps(order))
assert by_lambda == pickle.dumps(order)

try:
    bare(order)
except pickle.PicklingError as error:
    print(f"pickle.dumps: PicklingError: {error}")
    assert str(error) == "Can't pickle <class '__main__.Order'>: import of module '__main__' failed"
else:
    raise AssertionError("it is pickled")

try:
    copied(year, strptime=time.strptime)("2026")
except KeyError as error:
    print(f"time.strptime: KeyError: {error}")
    assert error.args == ("__builtins__",)
else:
    raise AssertionError("it is parsed")

mended = copied(pickled, dumps=pickle.dumps, __builtins__=builtins)(order) == pickle.dumps(order)
print("with __builtins__ in the globals:", mended)
assert mended
PROGRAM
"${PYTHON:-python3}" "$folder/program.py"
