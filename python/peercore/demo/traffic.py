"""The clients of the demonstration: who they are, what they do, and what they should get."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from peercore.demo.app import limit_of
from peercore.demo.http import Answer, Connection
from peercore.ratelimit.routes import UNMATCHED

_SLACK = 3
"""Requests by which a count may differ: when a check was made is known only to within a request's way and back."""


@dataclass
class Client:
    """One client: an address, a habit, and the tally of its requests.

    template: the route its requests belong to. rate: requests per second it tries to send. path: makes the path of its
    n-th request. forged: sends a different X-Forwarded-For every time.
    """

    name: str
    habit: str
    address: str
    template: str
    rate: float
    path: Callable[[int], str]
    well_behaved: bool
    forged: bool = False
    sent: int = 0
    admitted: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    first_sent: float = 0.0
    first_answered: float = 0.0
    last_sent: float = 0.0
    last_answered: float = 0.0

    async def run(self, port: int, until: float) -> None:
        """Send requests at the client's rate until the monotonic time `until`."""
        connection = Connection(self.address, port)
        start = time.monotonic()
        try:
            for number in itertools.count():
                due = start + number / self.rate
                if due >= until:
                    return
                await asyncio.sleep(due - time.monotonic())
                await self._ask(connection, number)
        finally:
            await connection.close()

    async def _ask(self, connection: Connection, number: int) -> None:
        headers = f"X-Forwarded-For: 203.0.113.{random.randrange(256)}\r\n" if self.forged else ""
        self.last_sent = time.monotonic()
        self.first_sent = self.first_sent or self.last_sent
        self.sent += 1
        try:
            answer = await connection.get(self.path(number), headers)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            self.faults.append(f"request {number}: {error!r}")
            return
        self.last_answered = time.monotonic()
        self.first_answered = self.first_answered or self.last_answered
        self._count(number, answer)

    def _count(self, number: int, answer: Answer) -> None:
        if answer.status == 429:
            self.refused += 1
            later = answer.headers.get("retry-after", "")
            if not (later.isdigit() and int(later) >= 1):
                self.faults.append(f"request {number}: refused without a time to come back")
        elif answer.status == (404 if self.template == UNMATCHED else 200):
            self.admitted += 1
        else:
            self.faults.append(f"request {number}: status {answer.status}")

    @property
    def allowance(self) -> tuple[int, int]:
        """Least and most requests the bucket admits in the time the client was at it: burst + rate * time."""
        per_minute, burst = limit_of(self.template)
        least = burst + per_minute / 60.0 * max(0.0, self.last_sent - self.first_answered)
        most = burst + per_minute / 60.0 * max(0.0, self.last_answered - self.first_sent)
        return min(self.sent, int(least)), min(self.sent, int(most))

    def problems(self) -> list[str]:
        """Return what went wrong, in words; empty when the client got what it should."""
        found = [f"{self.name}: {fault}" for fault in self.faults[:3]]
        least, most = self.allowance
        if self.well_behaved and self.refused:
            found.append(f"{self.name}: well-behaved, but refused {self.refused} times")
        if not self.well_behaved and not self.refused:
            found.append(f"{self.name}: abusive, but never refused")
        if not least - _SLACK <= self.admitted <= most + _SLACK:
            found.append(f"{self.name}: admitted {self.admitted}, the bucket allows {least} to {most}")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the tally as plain values."""
        per_minute, burst = limit_of(self.template)
        names = ("name", "habit", "address", "template", "well_behaved", "sent", "admitted", "refused")
        return {name: getattr(self, name) for name in names} | {
            "requests_per_minute": per_minute,
            "burst": burst,
            "bucket_allows": self.allowance[1],
            "problems": self.problems(),
        }


def cast() -> list[Client]:
    """Return the clients: three well-behaved, three abusive, each with an address of its own."""
    return [
        Client("chat", "3/s /message", "127.0.1.1", "/message", 3.0, lambda n: "/message", True),
        Client("shop", "5/s /items/*", "127.0.1.2", "/items/{number}", 5.0, lambda n: f"/items/{n}", True),
        Client("member", "signs in at times", "127.0.1.3", "/auth/token", 0.4, lambda n: "/auth/token", True),
        Client("flood", "50/s /message", "127.0.2.1", "/message", 50.0, lambda n: "/message", False),
        Client(
            "guess", "20/s forged login", "127.0.2.2", "/auth/token", 20.0, lambda n: "/auth/token", False,
            forged=True,
        ),
        Client("scan", "60/s random paths", "127.0.2.3", UNMATCHED, 60.0, lambda n: f"/no/{n}.php", False),
    ]  # fmt: skip


async def drive(clients: list[Client], port: int, seconds: float) -> None:
    """Let all `clients` loose on the server at `port` for `seconds`."""
    until = time.monotonic() + seconds
    await asyncio.gather(*(client.run(port, until) for client in clients))
