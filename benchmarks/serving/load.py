"""Load on an HTTP endpoint: closed loop (wrk, written in C) and open loop (Poisson arrivals, one asyncio client).

Open loop times a request from the moment it should have left, so a stalled server can't hide its stall.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import tempfile
import time
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
    """Keep ``connections`` requests under way from ``cpu`` for ``seconds``."""
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "post.lua")
        body.write_bytes(request.body)
        lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in request.headers.items()]
        script.write_text(SCRIPT.format(body=body, headers="\n".join(lines)))
        command = ["taskset", "-c", str(cpu), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script)]
        shown = subprocess.run([*command, request.url], capture_output=True, text=True, check=True).stdout
    found = json.loads(shown.split("RESULT ")[1])
    return Result(found["p50"], found["p95"], found["p99"], found["requests"] / found["seconds"], int(found["errors"]))


class _Connection(asyncio.Protocol):
    """A kept-alive connection that carries one request at a time and knows HTTP/1.1 answers with a length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._held = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= length and self._answer is not None:
            self._held = b""
            answer, self._answer = self._answer, None
            answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed"))

    async def send(self, raw: bytes) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(raw)
        return await self._answer


class OpenLoop:
    """Requests that leave at Poisson times, whatever the server does. ``sent`` and ``errors`` count while it runs."""

    def __init__(self, request: Request, rate: float, seed: int = 0) -> None:
        parts = urlsplit(request.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(request.body)}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        self._raw = "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body
        self._rate, self._random = rate, random.Random(seed)  # noqa: S311  (arrival times, no secret)
        self._free: list[_Connection] = []
        self.milliseconds: list[float] = []
        self.sent = self.errors = 0

    async def run(self, seconds: float) -> None:
        """Send for ``seconds``, then wait for what is under way."""
        loop = asyncio.get_running_loop()
        start = due = loop.time()
        under_way: set[asyncio.Task[None]] = set()
        while due < start + seconds:
            due += self._random.expovariate(self._rate)
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            task = loop.create_task(self._one(due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way:
            await asyncio.wait(under_way, timeout=30)
        for connection in self._free:
            connection.transport.close()

    async def _one(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        self.sent += 1
        try:
            if self._free:
                connection = self._free.pop()
            else:
                _, connection = await loop.create_connection(_Connection, self._host, self._port)
            status = await connection.send(self._raw)
        except OSError:
            self.errors += 1
            return
        self.milliseconds.append((loop.time() - due) * 1e3)
        self.errors += status != 200
        self._free.append(connection)


def poisson(request: Request, rate: float, seconds: float, seed: int = 0) -> Result:
    """Send at ``rate`` a second for ``seconds`` from this process."""
    loop = OpenLoop(request, rate, seed)
    started = time.monotonic()
    asyncio.run(loop.run(seconds))
    took = time.monotonic() - started
    p50, p95, p99 = np.percentile(loop.milliseconds, [50, 95, 99])
    return Result(float(p50), float(p95), float(p99), len(loop.milliseconds) / took, loop.errors)
