#!/usr/bin/env bash
# cachetools 8.0.2: after `copy.copy` of an object, a `cachedmethod` of the copy runs on the original.
#
# An account is copied, and the copy gets a name and a cache of its own. If the method was looked up on the original before,
# the copy's method returns the original's name, for arguments that were never asked for too. What it returns is stored in the
# original's cache; the copy's stays empty. `copy.deepcopy` does it right, and so does a copy made before the first look-up.
#
# A good guess gets it wrong because the cache is asked of `self` at every call, and the copy has one of its own, and because
# in cachetools 6 it works. Since 7 the bound method, with its counts, is kept in the `__dict__` of the instance under the
# method's name. `copy.copy` copies what is in `__dict__`, so the copy has the bound method of the original.
#
# Output seen:
#
#     cachetools 6.2.6: Ann and Bob, later Bob; stored: 1 and 2
#     cachetools 8.0.2, copied first: Ann and Bob, later Bob; stored: 1 and 2
#     cachetools 8.0.2, called first: Ann and Ann, later Ann; stored: 2 and 0
#     cachetools 8.0.2, deepcopy: Ann and Bob, later Bob; stored: 1 and 2
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/program.py" <<'PROGRAM'
import copy

import cachetools

NEW = cachetools.__version__ == "8.0.2"


class Account:
    def __init__(self, name):
        self.name, self.cache = name, cachetools.TTLCache(100, ttl=600)

    @cachetools.cachedmethod(lambda self: self.cache)
    def owner(self, country="NL"):
        return self.name


def scene(copied, call_first):
    ann = Account("Ann")
    if call_first:
        ann.owner()
    bob = copied(ann)
    bob.name, bob.cache = "Bob", cachetools.TTLCache(100, ttl=600)
    names = ann.owner(), bob.owner(), bob.owner("DE")
    return *names, len(ann.cache), len(bob.cache)


def tell(what, seen, expected):
    print("cachetools {}{}: {} and {}, later {}; stored: {} and {}".format(cachetools.__version__, what, *seen))
    assert seen == expected


RIGHT = ("Ann", "Bob", "Bob", 1, 2)
if NEW:
    tell(", copied first", scene(copy.copy, call_first=False), RIGHT)
    tell(", called first", scene(copy.copy, call_first=True), ("Ann", "Ann", "Ann", 2, 0))
    tell(", deepcopy", scene(copy.deepcopy, call_first=True), RIGHT)
else:
    tell("", scene(copy.copy, call_first=True), RIGHT)
PROGRAM
for version in 6.2.6 8.0.2; do
    "${PYTHON:-python3}" -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q --disable-pip-version-check cachetools==$version
    "$folder/$version/bin/python" "$folder/program.py"
done
