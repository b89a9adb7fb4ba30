"""Open loop: requests leave at Poisson times, whatever the server does.

A request is timed from the moment it should have left, so a stalled server can't hide its stall. As with wrk2 so many
connections are open from the start and no more come: clients that open a thousand at a stall would time that. The loop
stands on plain sockets: the client must add little to what it times, and asyncio's tasks would.
"""

from __future__ import annotations

import random
import select
import socket
import time
from array import array
from collections import deque
from urllib.parse import urlsplit

import numpy as np
from closed_loop import Request, Result

CONNECTIONS = 128
PATIENCE_S = 30.0  # for what is still under way at the end


class _Connection:
    """A kept-alive connection that carries one request at a time and knows HTTP/1.1 answers with a length."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._held = b""

    def status(self) -> int | None:
        """Read what has come and return the status once the answer is whole. Raises OSError when it never will be."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return None
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) < length:
            return None
        self._held = b""
        return int(head[9:12])


class OpenLoop:
    """``rate`` requests a second. ``sent`` and ``errors`` count while it runs, ``milliseconds`` holds each answer's."""

    def __init__(self, request: Request, rate: float, seed: int = 0) -> None:
        parts = urlsplit(request.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(request.body)}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        self._raw = "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body
        self._rate, self._random = rate, random.Random(seed)  # noqa: S311  (arrival times, no secret)
        self._free: deque[_Connection] = deque()
        self._all: dict[int, _Connection] = {}
        self._poll = select.epoll()
        self.milliseconds = array("d")
        self.sent = self.errors = 0
        self._timed = 0.0  # from when on answers are

    def run(self, seconds: float, warm_up: float = 0.0) -> None:
        """Send for ``warm_up`` and then for ``seconds``, whose answers are timed; wait for what is under way."""
        now = time.perf_counter
        self._free.extend(self._connect() for _ in range(CONNECTIONS))
        self._timed = now() + warm_up
        end = self._timed + seconds
        due = now() + self._random.expovariate(self._rate)
        while due < end:
            wait = due - now()
            if wait <= 0 and self._free:
                self._send(due)
                due += self._random.expovariate(self._rate)
            self._receive(max(0.0, due - now()) if self._free else 1.0)
        last = now() + PATIENCE_S
        while len(self._free) < len(self._all) and now() < last:
            self._receive(1.0)
        self.errors += len(self._all) - len(self._free)
        for connection in self._all.values():
            connection.socket.close()
        self._poll.close()

    def _send(self, due: float) -> None:
        self.sent += 1
        try:
            connection = self._free.popleft()
            connection.socket.sendall(self._raw)
        except OSError:
            self.errors += 1
            return
        connection.due = due

    def _connect(self) -> _Connection:
        connection = _Connection(*self._address)
        self._all[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _receive(self, seconds: float) -> None:
        """Take what comes within ``seconds``, the answers of one moment together.

        epoll's own timeout counts milliseconds; select's counts microseconds and can wait for an epoll.
        """
        if not select.select((self._poll,), (), (), seconds)[0]:
            return
        for number, _ in self._poll.poll(0):
            connection = self._all[number]
            try:
                status = connection.status()
            except OSError:
                self.errors += 1
                del self._all[number]
                self._poll.unregister(connection.socket)
                connection.socket.close()
                if connection in self._free:  # it was idle, and nothing is lost
                    self._free.remove(connection)
                    self.errors -= 1
                self._free.append(self._connect())
                continue
            if status is not None:
                if connection.due >= self._timed:
                    self.milliseconds.append((time.perf_counter() - connection.due) * 1e3)
                self.errors += status != 200
                self._free.append(connection)


def poisson(request: Request, rate: float, seconds: float, warm_up: float = 0.0, seed: int = 0) -> Result:
    """Send at ``rate`` a second for ``seconds`` from this process, after a ``warm_up`` on the same connections."""
    loop = OpenLoop(request, rate, seed)
    started = time.monotonic()
    loop.run(seconds, warm_up)
    took = time.monotonic() - started - warm_up
    p50, p95, p99 = np.percentile(loop.milliseconds, [50, 95, 99])
    return Result(float(p50), float(p95), float(p99), len(loop.milliseconds) / took, loop.errors)
