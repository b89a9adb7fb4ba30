"""100,000 requests within one timeout of BentoML: what its timers cost, and that our service has none.

BentoML 1.4 starts a timer for each request and never cancels it, so each request's task, scope and answer live until
its timeout is over, and every full garbage collection looks at all of them while everybody waits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bodies
import closed_loop
import numpy as np
import open_loop
import priority
import servers
from soak import resident_mb

from slimline import manifest

OUT = Path("metrics/timers.json")
NAMES = ("mounted in bentoml", "slimline in bentoml")


def main() -> None:
    """Send the same requests at the same rate to our service and to one that BentoML's middleware stands before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("release"))
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=1200.0, help="Requests a second; all within 300 s.")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    priority.first()
    measured: dict[str, Any] = {name: measure(name, options.release, options.requests, options.rate) for name in NAMES}
    document = {"format": 1, "requests": options.requests, "rate": options.rate, "servers": measured}
    manifest.write_json(options.out, document)
    print(manifest.as_json(document))


def measure(name: str, release: Path, count: int, rate: float) -> dict[str, float]:
    """Return latency percentiles in ms, stalls (answers later than 100 ms), errors, and how memory grew in MiB."""
    variant = next(each for each in servers.variants(release) if each.name == name)
    body = bodies.bodies(release, servers.model_name(release))["v2-binary"]
    with servers.serving(variant, release) as server:
        url = f"{server.http}/v2/models/{servers.model_name(release)}/infer"
        request = closed_loop.Request(url, body.data, body.headers)
        open_loop.poisson(request, rate, 2.0)
        before = resident_mb(server.pid)
        client = open_loop.OpenLoop(request, rate)
        client.run(count / rate)
        grown = resident_mb(server.pid) - before
    milliseconds = np.array(client.milliseconds)
    times = {f"p{q:g}_ms": float(np.percentile(milliseconds, q)) for q in (50, 99, 99.9, 100)}
    late = float((milliseconds > 100).mean())
    return times | {"later_than_100_ms": late, "errors": client.errors, "grown_mb": grown}


if __name__ == "__main__":
    main()
