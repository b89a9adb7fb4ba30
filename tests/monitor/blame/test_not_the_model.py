"""Latency, drift and serving are told apart from a stage's fault, by what the monitor holds them to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from slimline.cli import app
from slimline.manifest import digest
from slimline.monitor.alarm import Alarm
from slimline.monitor.blame import blame, on_alarm, replayed
from slimline.monitor.blame.chain import Chain
from slimline.monitor.standing import Standing, State
from slimline.params import Monitor
from tests.monitor.blame.planted import Traffic, Workshop


def test_slow_requests_explain_no_wrong_answers(good: Path, workshop: Workshop, tmp_path: Path) -> None:
    with Traffic(rows=100, delay=0.005).write(f"sqlite:///{tmp_path}/events.db", good, workshop, 0) as store:
        assert blame(good, store, signal="accuracy", rounds=2).verdict == "nothing"
        assert blame(good, store, rounds=2).verdict == "serving"


def test_requests_are_held_to_what_the_monitor_holds_them_to(good: Path, workshop: Workshop, tmp_path: Path) -> None:
    """``slimline monitor --params`` stands in for what the release was made with."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    (tmp_path / "params.yaml").write_text(json.dumps(
        Chain.read(good).card["params"] | {"monitor": {"latency_ms": {"predict": 1000}}}
    ))  # fmt: skip
    with Traffic(rows=100, delay=0.005).write(url, good, workshop, 0) as store:
        assert blame(good, store, rounds=2).verdict == "serving"
        assert blame(good, store, rounds=2, settings=Monitor(latency_ms={"predict": 1000})).verdict == "nothing"
    command = ["blame", str(good), "--store", url, "--params", str(tmp_path / "params.yaml")]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout.splitlines()[0].split()[0]) == (0, "nothing:"), done.output


def test_a_release_without_measured_latency_is_held_to_none(
    good: Path, workshop: Workshop, tmp_path: Path, resealed: Callable[..., Path]
) -> None:
    release = resealed(
        good, tmp_path / "unmeasured", lambda _, card: card["benchmark"]["stages"]["quantize"].update(latency_ms={})
    )
    with Traffic(rows=100, delay=0.005).write(f"sqlite:///{tmp_path}/events.db", release, workshop, 0) as store:
        assert blame(release, store, rounds=2).verdict == "nothing"


def test_drift_that_the_monitor_saw_is_drift(good: Path, workshop: Workshop, tmp_path: Path) -> None:
    own = ("accuracy", digest(good), "default", State.REGRESSED, "it fell", 1e9, 300)
    drift = Standing("drift/input", *own[1:])
    with Traffic(rows=60).write(f"sqlite:///{tmp_path}/events.db", good, workshop, 0) as store:
        told = Alarm("one", 1e9 + 60, Standing(*own))
        assert on_alarm(told, good, store).verdict == "nothing"
        assert on_alarm(told, good, store, standings=[drift]).verdict == "data"


def test_answers_that_are_not_the_models_are_servings_fault(good: Path, workshop: Workshop) -> None:
    """The same rows through the same model say something else: a process with another model, or broken kernels."""
    rows = replayed(good, {"image": workshop.images[:300]}, workshop.labels[:300].tolist())
    served = rows.served.copy()
    served[:40] = (served[:40] + 1) % 10
    found = blame(good, rows=replace(rows, served=served), rounds=0)
    assert found.verdict == "serving"
    assert "13.3% of the answers given are not what quantize's own model says" in found.why
