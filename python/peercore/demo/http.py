"""A small HTTP/1.1 client that chooses the loopback address it comes from, so that one machine has many clients."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

_ANSWER_S = 30.0


class Answer(NamedTuple):
    """status: int. headers: names in lower case."""

    status: int
    headers: dict[str, str]


class Connection:
    """One keep-alive connection from `address` to a loopback `port`, made anew when the server has closed it."""

    def __init__(self, address: str, port: int) -> None:
        self._address = address
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, headers: str = "") -> Answer:
        """Send a GET request and return the answer. `headers`: further lines, each with its line end.

        Raises OSError, EOFError or TimeoutError when there is no answer.
        """
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n{headers}\r\n".encode("latin-1")
        return await asyncio.wait_for(self._exchange(request), _ANSWER_S)

    async def close(self) -> None:
        """Close the connection; it can be used again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._address, 0))
        reader, writer = self._streams
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            await reader.readexactly(int(headers.get("content-length", "0")))
        except BaseException:
            await self.close()
            raise
        if headers.get("connection") == "close":
            await self.close()
        return Answer(int(head[0].split(" ", 2)[1]), headers)
