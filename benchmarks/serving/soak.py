"""A million requests at 60% of what the endpoint can do: does memory grow, is an event lost, does a request fail?

``make bench-soak`` writes metrics/soak.json: the slope of resident memory per 100,000 requests with its 95% interval
(least squares over the samples after the first tenth, block bootstrap), requests, errors, rows in the event store.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

import bodies
import closed_loop
import numpy as np
import open_loop
import priority
import servers
from numpy.typing import NDArray
from processes import tree

from slimline import benchmark, intervals, manifest

OUT = Path("metrics/soak.json")
SHARE = 0.6
EVERY_S = 1.0
BLOCKS = 20


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process and all below it, in MiB."""
    total = 0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
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


class Sampler(threading.Thread):
    """Notes every second how many requests were sent and how much memory the server holds."""

    def __init__(self, client: open_loop.OpenLoop, pid: int) -> None:
        super().__init__(daemon=True)
        self._client, self._pid = client, pid
        self._over = threading.Event()
        self.samples: list[tuple[int, float]] = []

    def run(self) -> None:
        while not self._over.wait(EVERY_S):
            self.samples.append((self._client.sent, resident_mb(self._pid)))
            sent, megabytes = self.samples[-1]
            print(f"\r{sent:,} requests, {megabytes:.0f} MiB, {self._client.errors} errors", end="", flush=True)

    def stop(self) -> None:
        self._over.set()
        self.join()


def main() -> None:
    """Find what the endpoint can do, then send a million requests at 60% of that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("release"))
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--variant", default="slimline")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    priority.first()
    variant = next(each for each in servers.variants(options.release) if each.name == options.variant)
    body = bodies.bodies(options.release, servers.model_name(options.release))[variant.body]
    with servers.serving(variant, options.release) as server:
        request = closed_loop.Request(server.url, body.data, body.headers)
        closed_loop.closed(request, 8, 2, servers.CLIENT_CPU)
        best = closed_loop.closed(request, 32, 5, servers.CLIENT_CPU).throughput
        os.sched_setaffinity(0, {servers.CLIENT_CPU})
        before = settled(server.events)
        client = open_loop.OpenLoop(request, SHARE * best)
        sampler = Sampler(client, server.pid)
        sampler.start()
        client.run(options.requests / (SHARE * best))
        sampler.stop()
        written = _wait_for_events(server.events, before + client.sent)
    kept = np.array(sampler.samples[len(sampler.samples) // 10 :], float)
    milliseconds = np.array(client.milliseconds)
    document = {
        "format": 1, "machine": benchmark.machine(), "variant": variant.name, "rate": SHARE * best,
        "requests": client.sent, "errors": client.errors, "events": written - before,
        "mb_per_100k": slope(kept[:, 0], kept[:, 1]), "resident_mb": [float(kept[0, 1]), float(kept[-1, 1])],
        "latency_ms": {f"p{q:g}": float(np.percentile(milliseconds, q)) for q in (50, 95, 99, 99.9, 100)},
    }  # fmt: skip
    manifest.write_json(options.out, document)
    print("\n" + manifest.as_json(document))
    lost = client.sent - client.errors - (written - before)
    if client.errors or lost:
        sys.exit(f"{client.errors} requests failed, {lost} answered ones are not in the event store")


def settled(events: Path) -> int:
    """Wait until no more events arrive, and return how many there are."""
    found = -1
    while (now := stored(events)) != found:
        found = now
        time.sleep(1)
    return found


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
