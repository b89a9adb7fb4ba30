"""Undo while a real server answers: the pointer or the weights move, and no request fails."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from slimline import params
from slimline.deployment import Deployment
from slimline.manifest import digest
from slimline.monitor.alertmanager import receive
from slimline.monitor.journal import Journal
from slimline.monitor.targets.deployment import Deployment as Target
from slimline.monitor.undo import Undo
from slimline.params import Undo as Policy
from slimline.task import Split
from tests.e2e.conftest import BIN
from tests.e2e.test_serving import SERVE, Process
from tests.endpoint.conftest import Load, until
from tests.monitor.undo.conftest import alarm
from tests.monitor.undo.test_alertmanager import BEARER, TOKEN, body

Serve = Callable[..., Process]


@pytest.fixture
def deployment(two_releases: tuple[Path, Path], tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path / "deploy")
    for each in two_releases:
        made.activate(made.install(each))
    return made


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start ``slimline serve`` with settings."""
    processes = []

    def start(**settings: str) -> Process:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLIMLINE_")}
        environment |= {"OMP_NUM_THREADS": "1", "SLIMLINE_EVENT_STORE": "", "SLIMLINE_RELOAD_SECONDS": "0.2"}
        environment |= {f"SLIMLINE_{name.upper()}": value for name, value in settings.items()}
        processes.append(Process(SERVE, environment, tmp_path / "log"))
        return processes[-1]

    yield start
    for each in processes:
        each.stop()


@pytest.fixture
def document(splits: dict[str, Split]) -> dict[str, Any]:
    rows: NDArray[np.float32] = splits["validation"].inputs["image"][:1]
    return {"inputs": {"image": rows.tolist()}}


def test_under_act_an_alert_moves_the_pointer_and_no_request_fails(
    serve: Serve, deployment: Deployment, document: dict[str, Any], tmp_path: Path
) -> None:
    first, second = deployment.earlier()[0], str(deployment.revision())
    server = serve(release=str(deployment.path))
    undo = Undo(Policy(policy="act"), Target(str(deployment.path)), Journal(tmp_path / "undo"))
    with Load(server.url, document) as load:
        until(lambda: len(load.seen) > 200)
        told = time.monotonic()
        status, answer = receive(undo, body(second), BEARER, TOKEN)
        until(lambda: load.seen[-1][1] == first, 60)
        print(f"\nback {time.monotonic() - told:.2f} s after the alert")
        after = len(load.seen)
        until(lambda: len(load.seen) > after + 200)
    assert (status, answer["actions"][0]["outcome"]) == (200, "done")
    assert {status for status, _ in load.seen} == {200}
    assert {revision for _, revision in load.seen} == {first, second}
    assert {revision for _, revision in load.seen[after + 8 :]} == {first}


def test_a_canary_loses_its_traffic_and_no_request_fails(
    serve: Serve, two_releases: tuple[Path, Path], document: dict[str, Any], tmp_path: Path
) -> None:
    stable, canary = (digest(each) for each in two_releases)
    path = tmp_path / "variants.json"
    path.write_text(
        json.dumps({"stable": {"release": str(two_releases[0])}, "canary": {"release": str(two_releases[1])}})
    )
    server = serve(variants=str(path))
    undo = Undo(Policy(policy="act"), Target(variants=str(path)), Journal(tmp_path / "undo"))
    with Load(server.url, document) as load:
        until(lambda: len(load.seen) > 200)
        assert {revision for _, revision in load.seen} == {stable, canary}
        assert undo.handle(alarm(canary, "canary"), by="monitor").outcome == "done"
        until(lambda: {revision for _, revision in load.seen[-100:]} == {stable}, 60)
    assert {status for status, _ in load.seen} == {200}


def test_the_command_proposes_and_a_person_accepts(deployment: Deployment, tmp_path: Path) -> None:
    """``slimline undo`` in a folder with params.yaml: --list, --dry-run, --lock, --unlock, and the action itself."""
    root = Path(__file__).parents[2]
    project = tmp_path / "project"
    project.mkdir()
    document = params.read(root / "params.yaml")
    document["monitor"]["undo"]["target"] = {"name": "deployment", "path": str(deployment.path)}
    (project / "params.yaml").write_text(yaml.safe_dump(document))
    first, second = deployment.earlier()[0], str(deployment.revision())
    told = alarm(second)
    folder = project / ".slimline" / "undo"
    Undo(Policy(), Target(str(deployment.path)), Journal(folder)).handle(told, by="monitor")

    def undo(*arguments: str) -> tuple[int, str]:
        command = [str(BIN / "slimline"), "undo", *arguments]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    assert f"{told.id}  proposed by monitor: go back from" in undo("--list")[1]
    assert undo("accuracy", "--dry-run") == (
        0,
        f"dry: go back from {second[7:19]} to {first[7:19]} in {deployment.path}\n",
    )
    assert undo("--lock", "we look at it")[0] == 0
    code, text = undo(told.id)
    assert (code, deployment.revision()) == (1, second)
    assert "holds undo off: we look at it" in text
    assert undo("--unlock")[0] == 0
    assert "undo  unlocked by" in undo("--list")[1]
    assert undo(told.id) == (0, f"done: {deployment.path} is back at {first[7:19]}\n")
    assert undo(told.id)[0] == 0
    assert deployment.revision() == first
    assert undo("nothing")[0] == 2
    assert undo()[0] == 2
