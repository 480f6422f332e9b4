#!/usr/bin/env bash
# cloudpickle 3.1.3 with wrapt 2.5.2: decorators made with wrapt are gone after a round trip, and a class loses them where it is.
#
# A function that `wrapt.decorator` has decorated is an object, whose `__class__` says `function`. pickle refuses it.
# cloudpickle, which sends what is defined in `__main__` or in a notebook by value, takes it for the function: what arrives is the
# undecorated one, without an error or a warning. With a class its methods lose their decorators likewise. If the pickle
# is loaded in the process that made it, the class is found there and brought up to date from the pickle: the original,
# and instances that exist already, lose theirs.
#
# A good guess gets it wrong because wrapt's wrapper refuses to be pickled, aloud, for exactly this reason
# (`object proxy must define __reduce__()`). And a wrapper that is an object of an ordinary class with
# `functools.update_wrapper` arrives decorated. cloudpickle asks `isinstance(obj, types.FunctionType)`, which goes by `__class__`,
# before it asks for `__reduce_ex__`.
#
# Output seen:
#
#     pickle: NotImplementedError object proxy must define __reduce__()
#     here: ('logged', 'ASML'), from cloudpickle: ASML
#     a class of its own, from cloudpickle: ('logged', 'ASML')
#     the method before: ('logged', 'ASML'), after dumps: ('logged', 'ASML'), after loads: ASML
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check cloudpickle==3.1.3 wrapt==2.5.2
cat > "$folder/program.py" <<'PROGRAM'
import functools
import pickle

import cloudpickle
import wrapt

DECORATED, BARE = ("logged", "ASML"), "ASML"


@wrapt.decorator
def logged(wrapped, instance, args, kwargs):
    return "logged", wrapped(*args, **kwargs)


class Logged:
    """The same as an ordinary object."""

    def __init__(self, function):
        functools.update_wrapper(self, function)

    def __call__(self, *args):
        return "logged", self.__wrapped__(*args)


def price(symbol):
    return symbol


class Account:
    @logged
    def price(self, symbol):
        return symbol


by_wrapt, by_class = logged(price), Logged(price)
try:
    pickle.dumps(by_wrapt)
except NotImplementedError as error:
    print("pickle:", type(error).__name__, error)
else:
    raise AssertionError("pickle takes it")

arrived = pickle.loads(cloudpickle.dumps(by_wrapt))
print(f"here: {by_wrapt('ASML')}, from cloudpickle: {arrived('ASML')}")
assert (by_wrapt("ASML"), arrived("ASML")) == (DECORATED, BARE)

arrived = pickle.loads(cloudpickle.dumps(by_class))
print(f"a class of its own, from cloudpickle: {arrived('ASML')}")
assert arrived("ASML") == DECORATED

account = Account()
before = account.price("ASML")
pickled = cloudpickle.dumps(Account)
dumped = account.price("ASML")
assert pickle.loads(pickled) is Account
loaded = account.price("ASML")
print(f"the method before: {before}, after dumps: {dumped}, after loads: {loaded}")
assert (before, dumped, loaded) == (DECORATED, DECORATED, BARE)
PROGRAM
"$folder/venv/bin/python" "$folder/program.py"
