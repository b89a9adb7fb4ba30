"""Canary and shadow, and releases that change while they serve."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from slimline import manifest
from slimline.deployment import Deployment
from slimline.errors import SlimlineError
from slimline.events import EventStore
from slimline.manifest import digest
from tests.endpoint.conftest import Load, Serve, Server, until


def variants(two: tuple[Path, Path], **second: Any) -> str:
    return json.dumps({"stable": {"release": str(two[0])}, "next": {"release": str(two[1]), **second}})


def test_weights_share_requests_and_an_id_stays_with_its_variant(
    serve: Serve, two_releases: tuple[Path, Path], rows: NDArray[np.float32]
) -> None:
    client = serve(variants=variants(two_releases, weight=0.25))
    document = {"inputs": {"image": rows[:1].tolist()}}

    def ask(name: str) -> tuple[str, str]:
        answer = client.post("/predict", json={**document, "id": name}).json()
        return answer["variant"], answer["revision"]

    first = {f"user-{number}": ask(f"user-{number}") for number in range(400)}
    assert first == {name: ask(name) for name in first}
    shares = Counter(variant for variant, _ in first.values())
    assert 50 <= shares["next"] <= 112  # 80 expected, 4 standard deviations
    assert set(first.values()) == {("stable", digest(two_releases[0])), ("next", digest(two_releases[1]))}
    card = client.get("/model").json()
    assert {name: each["weight"] for name, each in card["variants"].items()} == {"stable": 1.0, "next": 0.25}
    by_name = client.post("/v2/models/next/infer", json=v2(rows)).json()
    assert by_name["parameters"] == {"revision": digest(two_releases[1]), "variant": "next"}


def v2(rows: NDArray[np.float32]) -> dict[str, Any]:
    data = rows[:1].ravel().tolist()
    return {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": data}]}


def test_a_shadow_is_recorded_and_never_returned(
    serve: Serve, two_releases: tuple[Path, Path], rows: NDArray[np.float32], tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/events.db"
    client = serve(variants=variants(two_releases, shadow=True), event_store=store)
    core = client.app.state.core  # type: ignore[attr-defined]
    for number in range(20):
        answer = client.post("/predict", json={"inputs": {"image": rows.tolist()}, "id": f"r{number}"}).json()
        assert (answer["variant"], answer["revision"]) == ("stable", digest(two_releases[0]))
    assert client.post("/v2/models/next/infer", json=v2(rows)).status_code == 404
    deadline = time.monotonic() + 10
    while any(each.mirrored for each in core.variants.shadows) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert core.recorder._writer.flush(10)
    with EventStore.open(store) as events:
        answered = list(events.predictions(shadow=False))
        mirrored = list(events.predictions(shadow=True))
        assert len(answered) == len(mirrored) == 20
        assert {each.variant for each in mirrored} == {"next"}
        assert {each.revision for each in mirrored} == {digest(two_releases[1])}
        assert {each.id for each in mirrored} == {each.id for each in answered}
        assert not np.allclose(answered[0].outputs, mirrored[0].outputs)


def test_a_broken_shadow_hurts_nobody(
    serve: Serve, two_releases: tuple[Path, Path], rows: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(variants=variants(two_releases, shadow=True))
    core = client.app.state.core  # type: ignore[attr-defined]

    def broken(_: Any) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setattr(core.variants.shadows[0].live.batcher, "_run", broken)
    for _ in range(3):
        assert client.post("/predict", json={"inputs": {"image": rows.tolist()}}).status_code == 200
    deadline = time.monotonic() + 10
    dropped = r'slimline_shadow_dropped_total\{.*variant="next"\} 3\.0'
    while not re.search(dropped, client.get("/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def deployment(two_releases: tuple[Path, Path], tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path / "deploy")
    for each in two_releases:
        made.install(each)
    made.activate(digest(two_releases[0]))
    return made


def test_releases_change_under_load_without_a_failed_request(
    listen: Callable[..., Server],
    deployment: Deployment,
    two_releases: tuple[Path, Path],
    rows: NDArray[np.float32],
) -> None:
    server = listen(release=deployment.path, reload_seconds=0.05)
    revisions = [digest(each) for each in two_releases]
    with Load(server.url, {"inputs": {"image": rows[:1].tolist()}}) as load:
        for wanted in [*revisions[1:], *revisions] * 2:
            deployment.activate(wanted)
            until(lambda wanted=wanted: bool(load.seen) and load.seen[-1][1] == wanted)  # type: ignore[misc]
    assert {status for status, _ in load.seen} == {200}
    assert {revision for _, revision in load.seen} == set(revisions)
    metrics = httpx.get(f"{server.url}/metrics").text
    assert f'outcome="loaded",revision="{revisions[1]}",variant="default"}} ' in metrics
    gauges = ("requests_in_progress", "waiting_rows", "events_waiting", "ready")
    for gauge in gauges:
        assert f'slimline_{gauge}{{revision="{revisions[0]}",variant="default"}} 0.0' in metrics, "it answers no more"


def test_a_release_that_fails_is_refused_and_the_old_one_serves_on(
    listen: Callable[..., Server],
    deployment: Deployment,
    two_releases: tuple[Path, Path],
    rows: NDArray[np.float32],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = listen(release=deployment.path, reload_seconds=0.05)
    first, second = (digest(each) for each in two_releases)
    model = deployment.directory(second) / "chain" / "distill" / "model.onnx"
    whole = model.read_bytes()
    with Load(server.url, {"inputs": {"image": rows[:1].tolist()}}, clients=2) as load:
        deployment.activate(second)
        until(lambda: bool(load.seen) and load.seen[-1][1] == second)
        deployment.activate(first)
        until(lambda: load.seen[-1][1] == first)
        model.write_bytes(whole[:-1] + b"?")
        (deployment.path / "current").unlink()
        (deployment.path / "current").symlink_to(f"releases/{second[7:]}")
        until(lambda: "serves on" in caplog.text)
        time.sleep(0.3)
        assert caplog.text.count("serves on") == 1
        model.write_bytes(whole)
    assert {status for status, _ in load.seen} == {200}
    assert load.seen[-1][1] == first
    assert 'outcome="refused"' in httpx.get(f"{server.url}/metrics").text


def test_a_corrupted_release_that_runs_already_goes_on(
    listen: Callable[..., Server], release: Path, rows: NDArray[np.float32], tmp_path: Path
) -> None:
    own = tmp_path / "release"
    shutil.copytree(release, own)
    server = listen(release=own)
    document = {"inputs": {"image": rows.tolist()}}
    before = httpx.post(f"{server.url}/predict", json=document).json()["predictions"]
    for path in own.rglob("*.onnx"):
        path.write_bytes(b"gone")
    assert httpx.post(f"{server.url}/predict", json=document).json()["predictions"] == before


def test_an_admin_may_ask_for_another_look(
    serve: Serve, deployment: Deployment, two_releases: tuple[Path, Path]
) -> None:
    client = serve(release=deployment.path, tokens="admin admin-token-00000001")
    headers = {"authorization": "Bearer admin-token-00000001"}
    assert client.post("/admin/reload", headers=headers).json() == {"default": "unchanged"}
    deployment.activate(digest(two_releases[1]))
    assert client.post("/admin/reload", headers=headers).json() == {"default": "loaded"}
    assert client.get("/model").json()["variants"]["default"]["revision"] == digest(two_releases[1])


def test_a_start_without_a_whole_release_fails_in_one_line(serve: Serve, release: Path, tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=r"no release: neither card\.json nor a current pointer"):
        serve(release=tmp_path)
    own = tmp_path / "release"
    shutil.copytree(release, own)
    (own / "golden.npz").write_bytes(b"x")
    manifest_before = manifest.read_json(own / "manifest.json")
    assert "golden.npz" in manifest_before["files"]
    with pytest.raises(SlimlineError, match=r"golden\.npz"):
        serve(release=own)


def test_weights_follow_their_file_under_load(
    listen: Callable[..., Server],
    two_releases: tuple[Path, Path],
    rows: NDArray[np.float32],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "variants.json"
    path.write_text(variants(two_releases, weight=1.0))
    server = listen(variants=str(path), reload_seconds=0.05)

    def weights() -> list[float]:
        found = httpx.get(f"{server.url}/model").json()["variants"]
        return [each["weight"] for each in found.values()]

    first, second = (digest(each) for each in two_releases)
    with Load(server.url, {"inputs": {"image": rows[:1].tolist()}}, clients=2) as load:
        until(lambda: len(load.seen) > 100)
        assert {revision for _, revision in load.seen} == {first, second}
        manifest.write_text(path, variants(two_releases, weight=0))
        until(lambda: weights() == [1.0, 0.0])
        time.sleep(0.05)  # those on their way
        before = len(load.seen)
        until(lambda: len(load.seen) > before + 200)
        assert {revision for _, revision in load.seen[before:]} == {first}
        for broken in ("{", variants(two_releases, weight=-1), variants(two_releases[::-1])):
            caplog.clear()
            manifest.write_text(path, broken)
            until(lambda: "the weights stay" in caplog.text)
            time.sleep(0.2)
            assert caplog.text.count("the weights stay") == 1
            assert weights() == [1.0, 0.0]
        manifest.write_text(path, variants(two_releases, weight=3.0))
        until(lambda: weights() == [1.0, 3.0])
        until(lambda: load.seen[-1][1] == second)
    assert {status for status, _ in load.seen} == {200}
