"""Real server processes: ``slimline serve`` and the BentoML service, started, scanned, stopped and killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from slimline.deployment import Deployment
from slimline.events import EventStore
from slimline.manifest import digest
from slimline.predictor import Predictor
from tests.e2e.servers import BENTO, KINDS, ROOT, SERVE, Process, workers_of
from tests.endpoint.conftest import Load, until
from tests.ports import free_ports


@KINDS
def test_it_answers_without_torch(
    run: Callable[..., Process], command: list[str], document: dict[str, Any], two_releases: tuple[Path, Path]
) -> None:
    server = run(command)
    answer = httpx.post(f"{server.url}/predict", json=document)
    assert (answer.status_code, answer.json()["revision"]) == (200, digest(two_releases[0]))
    mapped = {Path(each.path).name for each in server.worker.memory_maps()}
    assert any(name.startswith("onnxruntime_pybind11") for name in mapped)
    assert not [name for name in mapped if "torch" in name]
    assert len(server.log.read_text().splitlines()) < 12, "a line a request?"


@KINDS
def test_on_sigterm_it_finishes_and_keeps_every_event(
    run: Callable[..., Process], command: list[str], document: dict[str, Any], tmp_path: Path
) -> None:
    server = run(command, drain_seconds="4")
    ready = []
    with Load(server.url, document) as load:
        until(lambda: len(load.seen) > 50)
        server.worker.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        ready.append(httpx.get(f"{server.url}/readyz"))
        asked = len(load.seen)
        time.sleep(0.3)
        assert len(load.seen) > asked, "requests are answered while it drains"
    assert [(each.status_code, each.json()) for each in ready] == [(503, {"status": "draining"})]
    server.stop()
    assert {status for status, _ in load.seen} == {200}
    with EventStore.open(f"sqlite:///{tmp_path}/events.db") as events:
        assert events.counts()["predictions"] == len(load.seen)


@KINDS
def test_the_triton_client_works_and_no_token_is_logged(
    run: Callable[..., Process], command: list[str], document: dict[str, Any], two_releases: tuple[Path, Path]
) -> None:
    token, wrong = "predict-token-000001", "a-wrong-token-000000"
    server = run(command, tokens=f"predict {token}")
    image = np.array(document["inputs"]["image"], np.float32)
    sent = triton.InferInput("image", list(image.shape), "FP32")
    sent.set_data_from_numpy(image)
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.is_model_ready("digits")
        found = client.infer("digits", [sent], headers={"Authorization": f"Bearer {token}"})
        with pytest.raises(triton.InferenceServerException, match="a bearer token is needed"):
            client.infer("digits", [sent], headers={"Authorization": f"Bearer {wrong}"})
    predictor = Predictor(two_releases[0], threads=1)
    np.testing.assert_allclose(found.as_numpy("logits"), predictor.predict({"image": image})["logits"], rtol=1e-4)
    predictor.close()
    refused = httpx.post(f"{server.url}/admin/reload", headers={"Authorization": f"Bearer {token}"})
    assert (refused.status_code, refused.json()) == (403, {"error": "the token lacks the scope admin"})
    httpx.post(f"{server.url}/predict?token={wrong}", content=b"\x00", headers={"Authorization": wrong})
    server.stop()
    log = server.log.read_text()
    assert token not in log
    assert wrong not in log


@KINDS
def test_a_scan_grows_no_series(run: Callable[..., Process], command: list[str]) -> None:
    server = run(command)
    httpx.get(f"{server.url}/nope")
    httpx.post(f"{server.url}/nope")

    def names() -> set[str]:
        lines = server.metrics().splitlines()
        return {re.sub(r"\} .*", "", line) for line in lines if not line.startswith("#")}

    before = names()
    with httpx.Client(base_url=server.url) as client:
        for number in range(200):
            client.get(f"/{number}/admin.php")
            client.post(f"/v2/models/{number}/infer")
    assert {name for name in names() - before if 'status="4' not in name} == set()
    assert "admin.php" not in server.metrics()


def test_bentomls_own_pages_are_served(run: Callable[..., Process]) -> None:
    server = run(BENTO)
    for path in ("/schema.json", "/docs.json"):
        assert httpx.get(f"{server.url}{path}").status_code == 200


def test_workers_share_their_metrics_and_a_killed_one_is_replaced(
    run: Callable[..., Process], document: dict[str, Any]
) -> None:
    server = run(BENTO, workers="2")

    def workers() -> list[psutil.Process]:
        return workers_of(server.process.pid)

    until(lambda: len(workers()) == 2)
    until(lambda: re.search(r"slimline_ready\{.*\} 2\.0", server.metrics()) is not None, 30)
    for _ in range(60):  # a connection each, so that both are asked
        assert httpx.post(f"{server.url}/predict", json=document).status_code == 200
    until(lambda: predictions(server.metrics()) == 60)  # the worker that isn't asked writes its counts once a second
    victim = workers()[0]
    victim.kill()
    seen = []
    deadline = time.monotonic() + 30
    while len(workers()) < 2 or victim in workers():
        assert time.monotonic() < deadline
        try:
            seen.append(httpx.post(f"{server.url}/predict", json=document).status_code)
        except httpx.TransportError:  # what the killed one was answering
            seen.append(0)
        time.sleep(0.01)
    assert seen.count(0) <= 2
    assert set(seen) <= {0, 200}
    until(lambda: re.search(r"slimline_ready\{.*\} 2\.0", server.metrics()) is not None, 30)
    until(lambda: predictions(server.metrics()) == 60 + seen.count(200))  # what the killed one counted stays counted


def test_all_workers_follow_a_deployment_whoever_is_told(
    run: Callable[..., Process], two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    """The worker that answers looks at once, the other within SLIMLINE_RELOAD_SECONDS."""
    first, second = (digest(each) for each in two_releases)
    deployment = Deployment(tmp_path / "deployment")
    for each in two_releases:
        deployment.install(str(each))
    deployment.activate(first)
    token = "admin-token-00000001"  # noqa: S105
    server = run(BENTO, workers="2", release=str(deployment.path), reload_seconds="1", tokens=f"admin {token}")

    def ready(revision: str) -> bool:
        return re.search(rf'slimline_ready\{{revision="{revision}".*\}} 2\.0', server.metrics()) is not None

    until(lambda: ready(first), 30)
    deployment.activate(second)
    answer = httpx.post(f"{server.url}/admin/reload", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert (answer.status_code, httpx.get(f"{server.url}/model").status_code) == (200, 200)
    until(lambda: ready(second), 30)


def predictions(text: str) -> int:
    return round(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("slimline_predictions_")))


@pytest.fixture(scope="module")
def bento(two_releases: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A Bento as ``make bento`` builds it, in a folder that is gone then, and the environment it was built in."""
    folder = tmp_path_factory.mktemp("bento")
    version = digest(two_releases[0])[7:19]
    project = folder / "project"
    shutil.copytree(ROOT / "serving", project / "serving")
    shutil.copytree(two_releases[0], project / "release")
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", project / "dist"]
    subprocess.run([*wheel, ROOT], check=True, timeout=120)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLIMLINE_", "PYTHONPATH"))}
    environment |= {
        "BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1",
        "SLIMLINE_EVENT_STORE": f"sqlite:///{folder}/events.db",
    }  # fmt: skip
    build = ["build", "--bentofile", "serving/bentofile.yaml", "--version", version, "."]
    subprocess.run([sys.executable, "-m", "bentoml", *build], cwd=project, env=environment, check=True, timeout=300)
    shutil.rmtree(project)
    (found,) = (folder / "bentoml" / "bentos" / "slimline").glob(version)
    return found, environment


def test_a_bento_runs_in_a_clean_environment_without_torch(
    bento: tuple[Path, dict[str, str]], two_releases: tuple[Path, Path], document: dict[str, Any], tmp_path: Path
) -> None:
    """Its own install.sh, as in its container, fills a new virtual environment; nothing of the repository is near."""
    built, environment = bento
    home = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=120)
    environment = environment | {"VIRTUAL_ENV": str(home), "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    install = ["bash", built / "env" / "python" / "install.sh"]
    done = subprocess.run(install, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    installed = {path.name.partition("-")[0] for path in home.glob("lib/python*/site-packages/*.dist-info")}
    assert {"slimline", "bentoml", "onnxruntime"} <= installed
    assert not {"torch", "dvc", "gto", "onnx", "scikit_learn"} & installed
    tag = f"slimline:{built.name}"
    serve = [str(home / "bin" / "python"), "-m", "bentoml", "serve", tag, "--host", "127.0.0.1"]
    server = Process(serve, environment, tmp_path / "log", cwd=tmp_path)
    try:
        answer = httpx.post(f"{server.url}/predict", json={**document, "id": "one"})
        assert (answer.status_code, answer.json()["revision"]) == (200, digest(two_releases[0]))
        assert answer.json()["revision"][7:19] == built.name, "the Bento's version is the revision"
        label = httpx.post(f"{server.url}/feedback", json={"id": "one", "label": "3"})
        assert label.json()["outcome"] in {"new", "early"}
        mapped = " ".join(each.path for each in server.worker.memory_maps())
        assert "onnxruntime" in mapped
        assert str(home) in mapped
        assert not re.search(r"torch|" + re.escape(str(ROOT)), mapped)
    finally:
        server.stop()
    with EventStore.open(environment["SLIMLINE_EVENT_STORE"]) as events:
        assert [(row.id, row.label) for row in events.labelled()] == [("one", "3")]


def test_a_bento_installs_what_the_lock_pins() -> None:
    """pip takes these lines as they are; a local wheel with extras, as BentoML writes it, it doesn't."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [Requirement(each) for each in [*project["dependencies"], *project["optional-dependencies"]["serve"]]]
    lock = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line)
    pinned = {canonical(name): version for name, version in lock.items()}
    lines = (ROOT / "serving" / "requirements.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if not line.startswith("#"))
    expected = {canonical(each.name) for each in named} - {"bentoml"}
    assert {canonical(name): version for name, version in found.items()} == {name: pinned[name] for name in expected}
    assert f"slimline-{project['version']}-py3-none-any.whl" in (ROOT / "serving" / "bentofile.yaml").read_text()


@KINDS
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"release": "/nowhere"}, "/nowhere: no release"),
        ({"max_row": "1"}, "SLIMLINE_MAX_ROW: no such setting"),
        ({"tokens": "predict short"}, "SLIMLINE_TOKENS, token 1"),
    ],
)
def test_a_start_that_fails_says_why_in_one_line(
    command: list[str], settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    environment = os.environ | {f"SLIMLINE_{name.upper()}": value for name, value in settings.items()}
    environment |= {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--port", str(free_ports())], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == (2 if command == SERVE else 1)
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_damaged_release_stops_bentomls_workers_in_one_line(two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    damaged = shutil.copytree(two_releases[0], tmp_path / "damaged")
    (damaged / "golden.npz").write_bytes(b"")
    environment = os.environ | {
        "BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(ROOT),
        "SLIMLINE_RELEASE": str(damaged), "SLIMLINE_EVENT_STORE": "",
    }  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*BENTO, "--port", str(free_ports())], cwd=ROOT, env=environment, stdout=out, stderr=out
        )
    try:
        until(lambda: "startup failed" in log.read_text(), 60)
    finally:
        process.terminate()
        process.wait(30)
    assert "golden.npz: 0 bytes, manifest.json says" in log.read_text()
    assert "Traceback" not in log.read_text()
