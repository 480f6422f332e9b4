#!/usr/bin/env bash
# CPython 3.11 and 3.12, wrapt 2.5.2 without its C extension: a decorated bound method in a class runs on that class's instances.
#
# Python leaves a bound method as it is, wherever it is put, and so does wrapt where its C extension is there. Its classes in
# Python (where it has no wheel, or with `WRAPT_DISABLE_EXTENSIONS=1`) look for `__get__` on the bound method itself. In these
# two versions of CPython that is no descriptor: it shows its function's `__get__`, so the function is bound anew, and `self` is
# an instance of the other class. Up to 3.10 and from 3.13 on bound methods have a `__get__` of their own.
#
# A good guess gets it wrong because both builds of wrapt are to do the same, and nothing is raised where the other object
# happens to have the attributes that the method reads.
#
# Output seen (Python 3.11.7 and 3.12.1; run it with one of these, `PYTHON=python3.12`):
#
#     with its C extension: plain source, decorated source
#     without: plain source, decorated account
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check wrapt==2.5.2
cat > "$folder/program.py" <<'PROGRAM'
import wrapt


@wrapt.decorator
def passing(wrapped, instance, args, kwargs):
    return wrapped(*args, **kwargs)


class Source:
    name = "source"

    def read(self):
        return self.name


class Account:
    name = "account"
    plain = Source().read
    decorated = passing(Source().read)


print(f"plain {Account().plain()}, decorated {Account().decorated()}")
PROGRAM
built=$("$folder/venv/bin/python" "$folder/program.py")
unbuilt=$(WRAPT_DISABLE_EXTENSIONS=1 "$folder/venv/bin/python" "$folder/program.py")
printf 'with its C extension: %s\nwithout: %s\n' "$built" "$unbuilt"
test "$built" = "plain source, decorated source"
test "$unbuilt" = "plain source, decorated account"
