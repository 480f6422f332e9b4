#!/usr/bin/env bash
# beartype 0.23.1 on a class, with wrapt 2.5.2: a decorator that stands above @classmethod or @staticmethod is taken off.
#
# `@beartype` on a class checks the calls of its methods. A method that `wrapt.decorator` has decorated stays decorated, and so does a
# class method with the decorator below `@classmethod`. With the decorator above it, the class keeps an ordinary class method:
# the decorator's code is not run any more. Nothing is raised or warned of, and types are checked as they should be.
#
# A good guess gets it wrong because wrapt's wrappers bind class methods themselves, so the same class works without `@beartype`.
# The wrapper's `__class__` says `classmethod`. beartype goes by that, takes the innermost function out of it, and makes a new
# class method of that function; what stood between is left behind.
#
# Output seen:
#
#     without beartype: above ('logged', 'Rates EUR'), below ('logged', 'Rates EUR'), static ('logged', 'EUR'), method ('logged', 'EUR')
#     with beartype: above Rates EUR, below ('logged', 'Rates EUR'), static EUR, method ('logged', 'EUR')
#     types are checked: BeartypeCallHintParamViolation
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check beartype==0.23.1 wrapt==2.5.2
cat > "$folder/program.py" <<'PROGRAM'
import wrapt
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation


@wrapt.decorator
def logged(wrapped, instance, args, kwargs):
    return "logged", wrapped(*args, **kwargs)


def rates():
    class Rates:
        @logged
        @classmethod
        def above(cls, currency: str):
            return f"{cls.__name__} {currency}"

        @classmethod
        @logged
        def below(cls, currency: str):
            return f"{cls.__name__} {currency}"

        @logged
        @staticmethod
        def static(currency: str):
            return currency

        @logged
        def method(self, currency: str):
            return currency

    return Rates


def told(Rates):
    calls = {"above": Rates.above, "below": Rates.below, "static": Rates.static, "method": Rates().method}
    got = {name: call("EUR") for name, call in calls.items()}
    return got, ", ".join(f"{name} {value}" for name, value in got.items())


without, text = told(rates())
print("without beartype:", text)
assert set(map(type, without.values())) == {tuple}
checked = beartype(rates())
got, text = told(checked)
print("with beartype:", text)
assert got == without | {"above": "Rates EUR", "static": "EUR"}
try:
    checked.above(1)
except BeartypeCallHintParamViolation as error:
    print("types are checked:", type(error).__name__)
else:
    raise AssertionError("types are not checked")
PROGRAM
"$folder/venv/bin/python" "$folder/program.py"
