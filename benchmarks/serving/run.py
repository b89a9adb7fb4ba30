"""How much of the model's speed reaches the client: our endpoint beside the bare model, plain servers and Triton.

``make bench-serving`` starts each server in turn on CPU 0 and loads it from CPU 1; every server runs the same ONNX
file on one session thread, and the whole round is repeated in another order. Closed loop at several concurrencies,
then Poisson arrivals at 70% of what the server can do. Each run is kept in .slimline/bench/serving.jsonl, so that a
benchmark may be done in pieces (``--minutes 7``, again and again); a change to the release or to the code that serves
starts it anew. Medians over repeats and ratios with intervals go to metrics/serving.json, tables to
docs/benchmarks.md (python docs/check.py --write).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bodies
import closed_loop
import encoder_release
import open_loop
import priority
import servers
import summary
from processes import Waiting

from slimline import benchmark, manifest

HERE = Path(__file__).parent
OUT = Path("metrics/serving.json")
KEPT = Path(".slimline/bench/serving.jsonl")
SERVING_CODE = (
    "src/slimline/endpoint", "src/slimline/events", "src/slimline/model_repository", "src/slimline/runtimes", "serving",
)  # fmt: skip
CLOSED_CODE = (
    "bodies.py", "closed_loop.py", "floor.py", "priority.py", "processes.py", "run.py", "servers.py", "bento_plain.py",
    "starlette_app.py", "unmetered.py",
)  # fmt: skip
LOAD_CODE = (*CLOSED_CODE, "open_loop.py")
CLOSED = "closed"
Place = tuple[str, int, str, str]  # model, repeat, variant, phase
WARM_UP_S = 1.0
LOAD = 0.7


@dataclass(frozen=True)
class Plan:
    """How a model's servers are loaded: seconds of each phase (wrk takes whole ones), clients, who is left out."""

    seconds: float
    load_seconds: float
    clients: tuple[int, ...]
    skipped: tuple[str, ...]


PLANS = {
    "small": Plan(2.0, 5.0, (1, 8, 32), ("mounted in bentoml",)),
    "encoder": Plan(
        3.0, 8.0, (1, 32),
        ("starlette, uvloop", "mounted in bentoml", "slimline v2", "slimline v2, binary", "triton, json"),
    ),
}  # fmt: skip


def closed(variant: servers.Variant, release: Path, plan: Plan) -> dict[str, Any]:
    """Return {rows: {clients: numbers}, ready_s, torch, waited: the share of time its threads had to wait}."""
    body = bodies.bodies(release, servers.model_name(release))[variant.body]
    with servers.serving(variant, release) as server:
        request = closed_loop.Request(server.url, body.data, body.headers)
        if variant.grpc:
            _check_grpc(server, release)
        else:
            bodies.check(server.url, body, bodies.golden(release)[1])
        closed_loop.closed(request, 8, WARM_UP_S, servers.CLIENT_CPU)
        rows = {}
        waiting = Waiting(server.pid)
        for clients in plan.clients:
            with waiting:
                rows[str(clients)] = closed_loop.closed(request, clients, plan.seconds, servers.CLIENT_CPU)
        torch = server.has_torch()
    return {"rows": _numbers(variant, rows), "ready_s": server.ready_s, "torch": torch, "waited": waiting.share}


def loaded(variant: servers.Variant, release: Path, plan: Plan, capacity: float) -> dict[str, Any]:
    """Return {rows: {load: numbers}} for arrivals at LOAD of what the server answered to many clients."""
    body = bodies.bodies(release, servers.model_name(release))[variant.body]
    with servers.serving(variant, release) as server:
        request = closed_loop.Request(server.url, body.data, body.headers)
        closed_loop.closed(request, 8, WARM_UP_S, servers.CLIENT_CPU)
        held = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {servers.CLIENT_CPU})
        rows = {summary.LOAD: open_loop.poisson(request, LOAD * capacity, plan.load_seconds, WARM_UP_S)}
        os.sched_setaffinity(0, held)
    return {"rows": _numbers(variant, rows)}


def _numbers(variant: servers.Variant, rows: Mapping[str, closed_loop.Result]) -> dict[str, dict[str, float]]:
    if failed := sum(each.errors for each in rows.values()):
        sys.exit(f"{variant.name}: {failed} requests failed")
    return {name: dataclasses.asdict(each) for name, each in rows.items()}


def _check_grpc(server: servers.Server, release: Path) -> None:
    """Ask through Triton's own client; the load's frames hold the same message."""
    import numpy as np
    import tritonclient.grpc as client

    rows, expected = bodies.golden(release)
    inputs = []
    for name, array in rows.items():
        inputs.append(client.InferInput(name, array.shape, bodies.DATATYPES[str(array.dtype)]))
        inputs[-1].set_data_from_numpy(array)
    address = server.url.partition("//")[2].partition("/")[0]
    with client.InferenceServerClient(address) as asked:
        answer = asked.infer(servers.model_name(release), inputs)
    (output,) = answer.get_response().outputs
    assert np.allclose(answer.as_numpy(output.name), expected, atol=1e-3)


def floor(release: Path, seconds: float) -> dict[str, Any]:
    """Return the runtime's own numbers: a row a call, and 32 rows a call."""
    command = ["taskset", "-c", str(servers.SERVER_CPU), sys.executable, str(HERE / "floor.py")]
    shown = subprocess.run([*command, str(release), f"{seconds}"], check=True, capture_output=True, text=True).stdout
    return {"rows": json.loads(shown)}


def fingerprint(releases: dict[str, Path], own: Sequence[str]) -> str:
    """Return a digest of the releases and of the code that serves and measures: runs of other ones don't mix."""
    digest = hashlib.sha256()
    paths = [path for folder in SERVING_CODE for path in sorted(Path(folder).rglob("*.py"))]
    paths += [Path("src/slimline/predictor.py"), Path("src/slimline/answers.py")]
    for path in [*paths, *(HERE / name for name in own)]:
        digest.update(path.read_bytes())
    for release in releases.values():
        digest.update((release / "manifest.json").read_bytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Do what is left of ``--repeats`` rounds on both models, within ``--minutes``, and write what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("release"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="Stop after; the next call goes on.")
    parser.add_argument("--models", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--only", nargs="+", help="Names of variants.")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    alone = priority.first()
    releases = {"small": options.release, "encoder": encoder_release.build(Path(".slimline/bench/encoder-release"))}
    keys = {CLOSED: fingerprint(releases, CLOSED_CODE), summary.LOAD: fingerprint(releases, LOAD_CODE)}
    lines = KEPT.read_text().splitlines() if KEPT.is_file() else []
    done = {_place(run): run for run in map(json.loads, lines) if run["key"] == keys[run["phase"]]}
    left = [each for each in rounds(releases, options.repeats) if each not in done]
    left = [each for each in left if each[0] in options.models and each[2] in (options.only or [each[2]])]
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    for count, place in enumerate(left):
        if time.monotonic() > until:
            print(f"{len(left) - count} of {len(left)} runs are left; run again")
            break
        model, repeat, name, phase = place
        found = once(place, releases[model], done)
        done[place] = {"key": keys[phase], "model": model, "repeat": repeat, "variant": name, "phase": phase, **found}
        with KEPT.open("a") as file:
            file.write(json.dumps(done[place]) + "\n")
        row = found["rows"][summary.LOAD if phase == summary.LOAD else "32"]
        print(
            f"{model} {repeat} {phase} {name}: {row['p50_ms']:.3f}, {row['p99_ms']:.3f} ms, {row['throughput']:.0f}/s"
        )
        sys.stdout.flush()
    write(done, releases, options.repeats, options.out, alone=alone)


def once(place: Place, release: Path, done: Mapping[Place, dict[str, Any]]) -> dict[str, Any]:
    """Do one run."""
    model, repeat, name, phase = place
    plan = PLANS[model]
    if name == summary.FLOOR:
        return floor(release, plan.seconds)
    variant = next(each for each in servers.variants(release) if each.name == name)
    if phase == CLOSED:
        return closed(variant, release, plan)
    return loaded(variant, release, plan, done[model, repeat, name, CLOSED]["rows"]["32"]["throughput"])


def rounds(releases: dict[str, Path], repeats: int) -> list[Place]:
    """Return every run, the variants of a round in an order of its own; gRPC's load has no open loop."""
    order = random.Random(0)  # noqa: S311
    found: list[Place] = []
    for repeat in range(repeats):
        for model, release in releases.items():
            compared = [each for each in servers.variants(release) if each.name not in PLANS[model].skipped]
            names = [summary.FLOOR, *(each.name for each in compared)]
            found += [(model, repeat, name, CLOSED) for name in order.sample(names, len(names))]
            names = [each.name for each in compared if not each.grpc]
            found += [(model, repeat, name, summary.LOAD) for name in order.sample(names, len(names))]
    return found


def _place(run: dict[str, Any]) -> Place:
    return run["model"], run["repeat"], run["variant"], run["phase"]


def write(
    done: Mapping[Place, dict[str, Any]], releases: dict[str, Path], repeats: int, out: Path, *, alone: bool
) -> None:
    """Write the document: the models all of whose runs are done."""
    models: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for model in releases:
        places = [each for each in rounds(releases, repeats) if each[0] == model]
        if missing := sum(each not in done for each in places):
            print(f"{model}: {missing} of {len(places)} runs are missing, so it is not written yet")
            continue
        runs: dict[tuple[str, int], dict[str, Any]] = {}
        for place in sorted(places):  # the closed loop comes first
            run = runs.setdefault((place[2], place[1]), {"rows": {}})
            run.update(done[place] | {"rows": run["rows"] | done[place]["rows"]})
        names = dict.fromkeys(each[2] for each in places)
        models[model] = {name: [runs[name, repeat] for repeat in range(repeats)] for name in names}
    if not models:
        return
    tables = {
        model: {"revision": manifest.digest(releases[model]), "variants": summary.table(runs)}
        for model, runs in models.items()
    }
    document = {"format": 1, "machine": benchmark.machine(), "repeats": repeats, "first": alone, "models": tables}
    manifest.write_json(out, document | {"goals": summary.goals(models)})


if __name__ == "__main__":
    main()
