"""A TCP proxy before the server, for faults of the network: slow, cut, deaf, refusing."""

import asyncio
import contextlib
import threading

__all__ = ["Proxy"]

PATIENCE = 20.0


class Proxy:
    """Passes bytes on, in a thread of its own. What is set holds from then on, also for open connections.

    `delay`: seconds before each chunk is passed on, either way. `deaf`: nothing is passed on, either way, as
    by a peer that is gone without a word (half-open). `passed` counts the bytes that clients sent.
    """

    def __init__(self, port):
        self.target = port
        self.delay = 0.0
        self.deaf = False
        self.passed = 0
        self.opened = 0
        self.loop = asyncio.new_event_loop()
        self._writers = set()
        self._server = None
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.port = self._run(self._listen())

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def cut(self):
        """End all connections that are open."""
        self._run(self._cut())

    def refuse(self):
        """End all connections, and accept no more."""
        self._run(self._refuse())

    def accept(self):
        """Accept connections again, on the same port."""
        self._run(self._listen())

    def close(self):
        self.refuse()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    async def _listen(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self._server.sockets[0].getsockname()[1]

    async def _cut(self):
        now = set(self._writers)
        for writer in now:
            writer.transport.abort()
        while self._writers & now:
            await asyncio.sleep(0.001)  # until their tasks have ended

    async def _refuse(self):
        self._server.close()
        await self._cut()

    async def _serve(self, reader, writer):
        self.opened += 1
        self._writers.add(writer)
        other = None
        try:
            with contextlib.suppress(OSError):
                answers, other = await asyncio.open_connection("127.0.0.1", self.target)
                self._writers.add(other)
                ways = [
                    asyncio.ensure_future(self._pass(reader, other, True)),
                    asyncio.ensure_future(self._pass(answers, writer, False)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            for each in (writer, other):
                if each is not None:
                    each.transport.abort()
                    self._writers.discard(each)

    async def _pass(self, reader, writer, counted):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if counted:
                    self.passed += len(data)
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.deaf:
                    continue
                writer.write(data)
                await writer.drain()
