"""Closed loop: so many clients, each with one request under way (wrk, or h2load for gRPC; both in C)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TRIES = 3  # of h2load, which now and then ends without having sent anything
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
    for _ in range(TRIES):
        subprocess.run(command, capture_output=True, check=True)
        if log.stat().st_size:
            break
    else:
        sys.exit(f"{request.url}: h2load had no answer in {TRIES} runs of {seconds:g} s")
    rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
    p50, p95, p99 = np.percentile(rows[:, 2] / 1e3, [50, 95, 99])
    return Result(float(p50), float(p95), float(p99), len(rows) / seconds, int((rows[:, 1] != 200).sum()))
