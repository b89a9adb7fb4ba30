"""Load on an endpoint: closed loop (wrk, or h2load for gRPC; both in C) and open loop (Poisson arrivals).

Open loop times a request from the moment it should have left, so a stalled server can't hide its stall.
"""

from __future__ import annotations

import json
import random
import select
import socket
import subprocess
import tempfile
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

SCRIPT = """
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*all")
file:close()
{headers}
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format('RESULT {{"p50":%f,"p95":%f,"p99":%f,"requests":%d,"seconds":%f,"errors":%d}}',
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000, summary.requests,
    summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""
MOST_CONNECTIONS = 900  # select() takes file descriptors below 1024
PATIENCE_S = 30.0  # for what is still under way at the end


@dataclass(frozen=True)
class Request:
    """One request, sent over and over."""

    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """Milliseconds, requests a second, and how many requests failed."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    throughput: float
    errors: int


def closed(request: Request, connections: int, seconds: float, cpu: int) -> Result:
    """Keep ``connections`` requests under way from ``cpu`` for ``seconds``, each on a connection of its own."""
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        body.write_bytes(request.body)
        if request.headers.get("content-type") == "application/grpc":
            return _h2load(request, connections, seconds, ["taskset", "-c", str(cpu)], body)
        script = Path(folder, "post.lua")
        lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in request.headers.items()]
        script.write_text(SCRIPT.format(body=body, headers="\n".join(lines)))
        command = ["taskset", "-c", str(cpu), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script)]
        shown = subprocess.run([*command, request.url], capture_output=True, text=True, check=True).stdout
    found = json.loads(shown.split("RESULT ")[1])
    return Result(found["p50"], found["p95"], found["p99"], found["requests"] / found["seconds"], int(found["errors"]))


def _h2load(request: Request, connections: int, seconds: float, prefix: list[str], body: Path) -> Result:
    """The same over HTTP/2. Its log has a line a request: microseconds since the epoch, status, microseconds."""
    log = body.with_name("log")
    headers = [part for name, value in request.headers.items() for part in ("-H", f"{name}: {value}")]
    command = [
        *prefix, "h2load", f"--duration={seconds:g}s", "--warm-up-time=1s", f"--clients={connections}", "--threads=1",
        "--max-concurrent-streams=1", f"--data={body}", f"--log-file={log}", *headers, request.url,
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, check=True)
    rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
    p50, p95, p99 = np.percentile(rows[:, 2] / 1e3, [50, 95, 99])
    return Result(float(p50), float(p95), float(p99), len(rows) / seconds, int((rows[:, 1] != 200).sum()))


class _Connection:
    """A kept-alive connection that carries one request at a time and knows HTTP/1.1 answers with a length."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._held = b""

    def fileno(self) -> int:
        return self.socket.fileno()

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
    """Requests that leave at Poisson times, whatever the server does. ``sent`` and ``errors`` count while it runs.

    A loop of its own on plain sockets: the client must add little to what it times, and asyncio's tasks would.
    """

    def __init__(self, request: Request, rate: float, seed: int = 0) -> None:
        parts = urlsplit(request.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(request.body)}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        self._raw = "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body
        self._rate, self._random = rate, random.Random(seed)  # noqa: S311  (arrival times, no secret)
        self._free: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self.milliseconds = array("d")
        self.sent = self.errors = 0

    def run(self, seconds: float) -> None:
        """Send for ``seconds``, then wait for what is under way."""
        now = time.perf_counter
        end = now() + seconds
        due = now() + self._random.expovariate(self._rate)
        while due < end:
            wait = due - now()
            if wait > 0:
                self._receive(wait)
            elif len(self._busy) < MOST_CONNECTIONS:
                self._send(due)
                due += self._random.expovariate(self._rate)
            else:
                self._receive(1.0)
        last = now() + PATIENCE_S
        while self._busy and now() < last:
            self._receive(1.0)
        self.errors += len(self._busy)
        for connection in [*self._free, *self._busy]:
            connection.socket.close()

    def _send(self, due: float) -> None:
        self.sent += 1
        try:
            connection = self._free.pop() if self._free else _Connection(*self._address)
            connection.socket.sendall(self._raw)
        except OSError:
            self.errors += 1
            return
        connection.due = due
        self._busy.add(connection)

    def _receive(self, seconds: float) -> None:
        """Take the answers that come within ``seconds``, those of one moment together."""
        for connection in select.select(self._busy, (), (), seconds)[0]:
            try:
                status = connection.status()
            except OSError:
                self._busy.discard(connection)
                self.errors += 1
                continue
            if status is not None:
                self.milliseconds.append((time.perf_counter() - connection.due) * 1e3)
                self.errors += status != 200
                self._busy.discard(connection)
                self._free.append(connection)


def poisson(request: Request, rate: float, seconds: float, seed: int = 0) -> Result:
    """Send at ``rate`` a second for ``seconds`` from this process."""
    loop = OpenLoop(request, rate, seed)
    started = time.monotonic()
    loop.run(seconds)
    took = time.monotonic() - started
    p50, p95, p99 = np.percentile(loop.milliseconds, [50, 95, 99])
    return Result(float(p50), float(p95), float(p99), len(loop.milliseconds) / took, loop.errors)
