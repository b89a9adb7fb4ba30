"""How much of the model's speed reaches the client: our endpoint beside the bare model, plain servers and Triton.

``make bench-serving`` starts each server in turn on CPU 0, loads it from CPU 1, and repeats the whole round in another
order; every server runs the same ONNX file on one session thread. Closed loop at several concurrencies, then Poisson
arrivals at 70% of what the server can do. Medians over repeats and ratios with intervals go to metrics/serving.json,
tables to docs/benchmarks.md (python docs/check.py --write).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import encoder_release
import load
import numpy as np

from slimline import benchmark, intervals, manifest
from slimline.predictor import Predictor

HERE = Path(__file__).parent
OUT = Path("metrics/serving.json")
SERVER_CPU, CLIENT_CPU = 0, 1
CONCURRENCY = (1, 8, 32)
LOAD = 0.7
SLOWER = {"small": 1, "encoder": 3}  # seconds of load, times this
TRITON = Path(".venv/triton")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A server, and the request that it is sent. ``command`` has {release}, {port} and {folder} filled in."""

    name: str
    command: Sequence[str]
    path: str
    body: str
    ready: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server: its address, process, seconds until it was ready, and where its events would lie."""

    url: str
    pid: int
    ready_s: float
    events: Path


@contextmanager
def serving(variant: Variant, release: Path) -> Iterator[Server]:
    """Start a server on its CPU and yield it; stop it at the end."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        names = {"release": str(release.resolve()), "port": str(port), "folder": folder, "here": str(HERE)}
        command = [each.format_map(names) for each in variant.command]
        environment = {name: value.format_map(names) for name, value in variant.environment.items()}
        own = {"RELEASE": names["release"], "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True"}
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                ["taskset", "-c", str(SERVER_CPU), *command], env=os.environ | own | environment,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=Path.cwd(),
            )  # fmt: skip
            started = time.monotonic()
            try:
                url = f"http://127.0.0.1:{port}"
                while not _answers(url + variant.ready):
                    if process.poll() is not None or time.monotonic() - started > 60:
                        said = (Path(folder) / "log").read_text(errors="replace")[-2000:]
                        sys.exit(f"{variant.name} doesn't start:\n{said}")
                    time.sleep(0.05)
                yield Server(url, process.pid, time.monotonic() - started, Path(folder) / "events.db")
            finally:
                os.killpg(process.pid, 15)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, 9)
                    process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def bodies(release: Path) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Return one golden row as each of the bodies that variants take, with the headers that say so."""
    golden = np.load(release / "golden.npz")
    rows = {name.removeprefix("input/"): golden[name][:1] for name in golden.files if name.startswith("input/")}
    as_json = {"Content-Type": "application/json"}
    lists = {
        name: array.round(4).tolist() if array.dtype.kind == "f" else array.tolist() for name, array in rows.items()
    }
    tensors = [
        {"name": name, "shape": list(array.shape), "datatype": {"f": "FP32", "i": "INT64"}[array.dtype.kind]}
        for name, array in rows.items()
    ]
    flat = [{**each, "data": np.ravel(lists[each["name"]]).tolist()} for each in tensors]
    sized = [{**each, "parameters": {"binary_data_size": rows[each["name"]].nbytes}} for each in tensors]
    head = json.dumps({"inputs": sized, "parameters": {"binary_data_output": True}}).encode()
    binary = head + b"".join(array.tobytes() for array in rows.values())
    return {
        "inputs": (json.dumps({"inputs": lists}).encode(), as_json),
        "v2": (json.dumps({"inputs": flat}).encode(), as_json),
        "v2-binary": (
            binary,
            {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))},
        ),
        "bento": (json.dumps({"inputs": next(iter(lists.values()))}).encode(), as_json),
    }


def variants(release: Path) -> list[Variant]:
    """Return the servers that run ``release``. Triton stands among them where ``make test-triton`` has installed it."""
    python = sys.executable
    bento = [python, "-m", "bentoml", "serve", "--port", "{port}", "--host", "127.0.0.1", "--working-dir"]
    ours = {"SLIMLINE_RELEASE": "{release}"}
    with_events = ours | {"SLIMLINE_EVENT_STORE": "sqlite:///{folder}/events.db"}
    alone = [python, "-m", "slimline", "serve", "--port", "{port}"]
    uvicorn = [python, "-m", "uvicorn", "--app-dir", "{here}", "--port", "{port}", "--log-level", "warning"]
    name = manifest.read_json(release / "card.json")["task"]["name"]
    infer = f"/v2/models/{name}/infer"
    return [
        Variant("starlette", [*uvicorn, "--no-access-log", "starlette_app:app"], "/predict", "inputs", "/readyz"),
        Variant("bentoml", [*bento, "{here}", "bento_plain:Plain"], "/predict", "bento", "/readyz"),
        Variant(
            "bentoml batchable", [*bento, "{here}", "bento_plain:Plain"], "/predict", "bento", "/readyz",
            {"BATCHABLE": "1"},
        ),
        Variant(
            "slimline in bentoml", [*bento, "serving", "service:Slimline"], "/predict", "inputs", "/readyz",
            with_events,
        ),
        Variant("slimline", alone, "/predict", "inputs", "/readyz", with_events),
        Variant("slimline without events", alone, "/predict", "inputs", "/readyz", ours),
        Variant("slimline v2", alone, infer, "v2", "/readyz", with_events),
        Variant("slimline v2 binary", alone, infer, "v2-binary", "/readyz", with_events),
    ]  # fmt: skip


def once(variant: Variant, release: Path, seconds: float, concurrency: Sequence[int]) -> dict[str, Any]:
    """Return {concurrency: numbers}, ``load`` (Poisson arrivals at 70% of the best throughput) and ``ready_s``."""
    body, headers = bodies(release)[variant.body]
    with serving(variant, release) as server:
        request = load.Request(server.url + variant.path, body, headers)
        load.closed(request, 8, 1.0, CLIENT_CPU)
        rows = {str(each): load.closed(request, each, seconds, CLIENT_CPU) for each in concurrency}
        best = max(each.throughput for each in rows.values())
        rows["load"] = load.poisson(request, LOAD * best, seconds)
    if failed := sum(each.errors for each in rows.values()):
        sys.exit(f"{variant.name}: {failed} requests failed")
    return {name: dataclasses.asdict(each) for name, each in rows.items()} | {"ready_s": server.ready_s}


def floor_ms(release: Path, calls: int = 2000) -> float:
    """Return the milliseconds of one row in the runtime itself, the median of ``calls``, on the server's CPU."""
    golden = np.load(release / "golden.npz")
    row = {name.removeprefix("input/"): golden[name][:1] for name in golden.files if name.startswith("input/")}
    held = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CPU})
    predictor = Predictor(release, threads=1)
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        predictor.runtime.run(row)
        seconds.append(time.perf_counter() - start)
    predictor.close()
    os.sched_setaffinity(0, held)
    return float(np.median(seconds)) * 1e3


def ratio(own: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return [low, median, high] of own/other over repeats, a paired bootstrap of 95%."""
    pairs = np.array(own) / np.array(other)
    rng = np.random.default_rng(0)
    draws = np.median(pairs[rng.integers(0, len(pairs), (2000, len(pairs)))], axis=1)
    low, high = intervals.percentile(draws.tolist(), 0.95)
    return [low, float(np.median(pairs)), high]


def summary(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return medians over repeats by variant, and its ratios to plain BentoML and bare Starlette."""
    table: dict[str, Any] = {}
    for name, repeats in runs.items():
        rows = [key for key in repeats[0] if key != "ready_s"]
        table[name] = {
            row: {what: float(np.median([each[row][what] for each in repeats])) for what in repeats[0][row]}
            for row in rows
        }
        table[name]["ready_s"] = float(np.median([each["ready_s"] for each in repeats]))
        table[name]["ratios"] = {
            other: {
                row: {
                    what: ratio([each[row][what] for each in repeats], [each[row][what] for each in runs[other]])
                    for what in ("p50_ms", "throughput")
                }
                for row in rows
            }
            for other in runs
            if other != name
        }
    return table


def main() -> None:
    """Run every server ``--repeats`` times on both releases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", type=Path, default=Path("release"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", nargs="+", help="Names of variants.")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    releases = {"small": options.release, "encoder": encoder_release.build(Path(".slimline/bench/encoder-release"))}
    order = random.Random(0)  # noqa: S311
    models = {}
    for model, release in releases.items():
        chosen = [each for each in variants(release) if not options.only or each.name in options.only]
        if model == "encoder":
            chosen = [each for each in chosen if "binary" not in each.name and "v2" not in each.name]
        runs: dict[str, list[dict[str, Any]]] = {each.name: [] for each in chosen}
        for repeat in range(options.repeats):
            for variant in order.sample(chosen, len(chosen)):
                found = once(variant, release, options.seconds * SLOWER[model], CONCURRENCY)
                runs[variant.name].append(found)
                print(
                    f"{model} {repeat} {variant.name}: {found['1']['p50_ms']:.3f} ms, {found['32']['throughput']:.0f}/s"
                )
        models[model] = {"floor_ms": floor_ms(release), "variants": summary(runs)}
    document = {"format": 1, "machine": benchmark.machine(), "repeats": options.repeats, "models": models}
    manifest.write_json(options.out, document)


if __name__ == "__main__":
    main()
