"""Running the demonstration's application in a process of its own, and ending it whatever happens."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_STOP_S = 5.0


class ServerFailed(Exception):
    """The server process ended by itself; the text is what it had to say."""


class Server:
    """A server process on a free loopback port. port: int. Use `running()`, which ends it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
        self.port = port
        self._process = process
        self._log = log

    def log_lines(self) -> list[str]:
        """Return what the server has logged so far."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace").splitlines()

    def check(self) -> None:
        """Raise ServerFailed if the process is gone."""
        if self._process.poll() is not None:
            raise ServerFailed("\n".join(self.log_lines()[-20:]) or f"exit code {self._process.returncode}")

    def stop(self) -> None:
        """End the process: politely, by the end of its standard input, then for certain."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running(*arguments: str) -> Iterator[Server]:
    """Run ``peercore.demo.app`` with `arguments` while the context lasts.

    The socket listens before the process starts, so that there is neither a race for the port nor a wait for it. The
    process is in a session of its own: Ctrl-C reaches only this one, which then ends the other.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener, tempfile.TemporaryFile() as log:
        fd = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "peercore.demo.app", str(fd), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=[fd],
            start_new_session=True,
        )
        server = Server(process, listener.getsockname()[1], log)
        try:
            yield server
        finally:
            server.stop()
