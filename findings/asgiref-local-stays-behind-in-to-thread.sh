#!/usr/bin/env bash
# Django 5.2.19 with asgiref 3.13.0: the active language does not come along into `asyncio.to_thread`; context variables do.
#
# Inside `translation.override("nl")` a coroutine asks for the active language. In a task, and through `sync_to_async`, it is
# "nl". In `asyncio.to_thread`, and in another thread through `copy_context().run`, it is the default of the settings. A
# context variable that was set in the same place is seen in all of them.
#
# A good guess gets it wrong because Django keeps the language in `asgiref.local.Local`, which keeps it in a context variable,
# and both of these ways copy the context. The value there names the thread that owns it; other threads do not see it, unless
# asgiref itself has moved the work there.
#
# Output seen:
#
#     here: nl mine
#     task: nl mine
#     sync_to_async: nl mine
#     asyncio.to_thread: en mine
#     copy_context().run in a thread: en mine
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check django==5.2.19 asgiref==3.13.0
"$folder/venv/bin/python" - <<'PROGRAM'
import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

import django
from asgiref.sync import sync_to_async
from django.conf import settings

settings.configure(USE_I18N=True, LANGUAGE_CODE="en")
django.setup()

from django.utils.translation import get_language, override

variable = contextvars.ContextVar("variable", default="default")


def ask():
    return f"{get_language()} {variable.get()}"


async def ask_in_a_task():
    return ask()


async def main():
    variable.set("mine")
    with override("nl"), ThreadPoolExecutor(1) as pool:
        seen = {
            "here": ask(),
            "task": await asyncio.create_task(ask_in_a_task()),
            "sync_to_async": await sync_to_async(ask)(),
            "asyncio.to_thread": await asyncio.to_thread(ask),
            "copy_context().run in a thread": pool.submit(contextvars.copy_context().run, ask).result(),
        }
    for way, found in seen.items():
        print(f"{way}: {found}")
    assert list(seen.values()) == ["nl mine", "nl mine", "nl mine", "en mine", "en mine"]


asyncio.run(main())
PROGRAM
