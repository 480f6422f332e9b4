#!/usr/bin/env bash
# dogpile.cache 1.5.0: `refresh` of a decorated function stores values that its `should_cache_fn` refuses.
#
# `cache_on_arguments(should_cache_fn=...)` asks for each new value whether to store it. A call whose value is refused leaves
# the cache as it is. `fn.refresh(...)`, which calls the function and stores the result, stores it without asking, over a
# good value if there is one. From then on every call gets the refused value, until it expires. The same holds for
# `refresh` of `cache_multi_on_arguments`.
#
# A good guess gets it wrong because the condition belongs to the decorator, not to one way to call the function. The check is
# in `get_or_create`; `refresh` calls the function and `region.set` directly.
#
# Output seen:
#
#     a call that is refused: None, stored: NoValue.NO_VALUE
#     a refresh that is refused: None, stored: None
#     later calls: (None, None), function called 3 times
#     for many keys: [None], stored: [None]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check dogpile.cache==1.5.0
cat > "$folder/program.py" <<'PROGRAM'
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

region = make_region().configure("dogpile.cache.memory", expiration_time=600)
answers = iter([None, 984.75, None])
calls = 0


def is_known(value):
    return value is not None


@region.cache_on_arguments(should_cache_fn=is_known)
def price(symbol):
    global calls
    calls += 1
    return next(answers)


@region.cache_multi_on_arguments(should_cache_fn=is_known)
def prices(*symbols):
    return [None for _ in symbols]


got = price("ASML")
print(f"a call that is refused: {got}, stored: {price.get('ASML')}")
assert got is None
assert price.get("ASML") is NO_VALUE

assert price("ASML") == price.get("ASML") == 984.75
got = price.refresh("ASML")
print(f"a refresh that is refused: {got}, stored: {price.get('ASML')}")
assert got is None
assert price.get("ASML") is None
print(f"later calls: {(later := (price('ASML'), price('ASML')))}, function called {calls} times")
assert later == (None, None)
assert calls == 3

assert prices("ASML") == [None]
assert prices.get("ASML") == [NO_VALUE]
got = prices.refresh("ASML")
print(f"for many keys: {got}, stored: {prices.get('ASML')}")
assert prices.get("ASML") == [None]
PROGRAM
"$folder/venv/bin/python" "$folder/program.py"
