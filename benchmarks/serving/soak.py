"""A million requests at 60% of what the endpoint can do: does memory grow, is an event lost, does a request fail?

``make bench-soak`` writes metrics/soak.json: the slope of resident memory per 100,000 requests with its 95% interval
(least squares over the samples after the first tenth, block bootstrap), requests, errors, rows in the event store.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import load
import numpy as np
import run
from numpy.typing import NDArray

from slimline import intervals, manifest

OUT = Path("metrics/soak.json")
SHARE = 0.6
EVERY_S = 2.0
BLOCKS = 20


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process and all below it, in MiB."""
    total, todo = 0, [pid]
    while todo:
        each = todo.pop()
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
            children = Path(f"/proc/{each}/task/{each}/children").read_text().split()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        todo += [int(child) for child in children]
    return total / 1024


def slope(requests: NDArray[np.float64], megabytes: NDArray[np.float64]) -> list[float]:
    """Return [low, estimate, high] of MiB per 100,000 requests; blocks of samples are drawn: neighbours are alike."""

    def fit(rows: NDArray[np.intp]) -> float:
        return float(np.polyfit(requests[rows] / 1e5, megabytes[rows], 1)[0])

    blocks = np.array_split(np.arange(len(requests)), BLOCKS)
    rng = np.random.default_rng(0)
    draws = [fit(np.concatenate([blocks[at] for at in rng.integers(0, BLOCKS, BLOCKS)])) for _ in range(1000)]
    low, high = intervals.percentile(draws, 0.95)
    return [low, fit(np.arange(len(requests))), high]


async def soak(request: load.Request, rate: float, count: int, pid: int) -> tuple[load.OpenLoop, list[Any]]:
    """Send ``count`` requests at ``rate`` a second, and sample the server's memory as it goes."""
    client = load.OpenLoop(request, rate)
    sending = asyncio.create_task(client.run(count / rate))
    samples = []
    while not sending.done():
        samples.append((client.sent, resident_mb(pid)))
        await asyncio.sleep(EVERY_S)
        print(f"\r{client.sent:,} requests, {samples[-1][1]:.0f} MiB, {client.errors} errors", end="", flush=True)
    await sending
    return client, samples


def main() -> None:
    """Find what the endpoint can do, then send a million requests at 60% of that."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", type=Path, default=Path("release"))
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--variant", default="slimline")
    options = parser.parse_args()
    variant = next(each for each in run.variants(options.release) if each.name == options.variant)
    body, headers = run.bodies(options.release)[variant.body]
    with run.serving(variant, options.release) as server:
        request = load.Request(server.url + variant.path, body, headers)
        load.closed(request, 8, 2.0, run.CLIENT_CPU)
        best = load.closed(request, 32, 5.0, run.CLIENT_CPU).throughput
        os.sched_setaffinity(0, {run.CLIENT_CPU})
        before = stored(server.events)
        client, samples = asyncio.run(soak(request, SHARE * best, options.requests, server.pid))
        written = _wait_for_events(server.events, before + client.sent)
    kept = np.array(samples[len(samples) // 10 :])
    document = {
        "format": 1, "variant": variant.name, "rate": SHARE * best, "requests": client.sent, "errors": client.errors,
        "events": written - before, "mb_per_100k": slope(kept[:, 0], kept[:, 1]),
        "resident_mb": [float(kept[0, 1]), float(kept[-1, 1])],
        "latency_ms": dict(zip(("p50", "p95", "p99"), np.percentile(client.milliseconds, [50, 95, 99]), strict=True)),
    }  # fmt: skip
    manifest.write_json(OUT, document)
    print("\n" + manifest.as_json(document))


def _wait_for_events(events: Path, expected: int) -> int:
    """Wait up to 30 s until as many events are stored, and return how many are."""
    deadline = time.monotonic() + 30
    while (found := stored(events)) < expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def stored(events: Path) -> int:
    """Return how many predictions stand in the event store."""
    with sqlite3.connect(f"file:{events}?mode=ro", uri=True) as store:
        (count,) = store.execute("select count(*) from predictions").fetchone()
    return int(count)


if __name__ == "__main__":
    main()
