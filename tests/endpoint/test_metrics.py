"""The contract's metrics, and nothing that a client could make grow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from slimline import params
from slimline.buckets import SECONDS
from slimline.endpoint.metrics import PARTS, Metrics, Series, sweep
from slimline.events import REASONS
from slimline.manifest import digest, read_json
from tests.endpoint.conftest import Serve, until


def samples(client: TestClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def test_requests_are_counted_by_part_and_label(serve: Serve, release: Path, rows: NDArray[np.float32]) -> None:
    client = serve()
    answer = client.post("/predict", json={"inputs": {"image": rows.tolist()}}).json()
    found = samples(client)
    own = {("revision", digest(release)), ("variant", "default")}
    assert get_args(params.Part) == PARTS
    for part in PARTS:
        assert found["slimline_request_duration_seconds_count", frozenset({("part", part), *own})] == 1
    total = found["slimline_request_duration_seconds_sum", frozenset({("part", "total"), *own})]
    predict = found["slimline_request_duration_seconds_sum", frozenset({("part", "predict"), *own})]
    assert 0 < predict < total < 5
    for label in {each["label"] for each in answer["predictions"]}:
        count = sum(each["label"] == label for each in answer["predictions"])
        assert found["slimline_predictions_total", frozenset({("label", label), *own})] == count
    assert found["slimline_ready", frozenset(own)] == 1


def test_every_series_names_revision_and_variant(serve: Serve, rows: NDArray[np.float32]) -> None:
    client = serve()
    client.post("/predict", json={"inputs": {"image": rows.tolist()}})
    client.get("/nope")
    for name, labels in samples(client):
        assert {"revision", "variant"} <= dict(labels).keys(), name


def test_latencies_are_counted_at_the_objective_of_the_release(serve: Serve, release: Path) -> None:
    held = read_json(release / "monitoring" / "objectives.json")["latency"]
    keys = [dict(labels) for name, labels in samples(serve()) if name == "slimline_request_duration_seconds_bucket"]
    for part in PARTS:
        objective = {held[part]["seconds"]} if part in held else set()
        bounds = {float(labels["le"]) for labels in keys if labels["part"] == part}
        assert bounds == {*SECONDS, float("inf")} | objective
    assert not {each["seconds"] for each in held.values()} <= set(SECONDS), "or nothing was tried"


def test_releases_with_other_objectives_share_a_process() -> None:
    metrics = Metrics()
    for revision, objective in (("a", 0.0016), ("b", 0.0024), ("c", None)):
        series = Series(metrics, revision, "v", None, {} if objective is None else {"predict": objective})
        for seconds in (0.0015, 0.002):
            series.answered({"predict": seconds}, 1, None, 1)
        series.flush()

    def within(revision: str, le: str) -> float | None:
        labels = {"part": "predict", "revision": revision, "variant": "v", "le": le}
        return metrics.registry.get_sample_value("slimline_request_duration_seconds_bucket", labels)

    assert [within(each, "0.0016") for each in "abc"] == [1, None, None]
    assert [within(each, "0.0024") for each in "abc"] == [None, 2, None]
    assert [within(each, "0.0025") for each in "abc"] == [2, 2, 2]


def test_what_alerts_ask_the_growth_of_is_there_before_the_first_event(serve: Serve, release: Path) -> None:
    own = {("revision", digest(release)), ("variant", "default")}
    wanted = {
        "slimline_events_dropped_total": {("reason", each) for each in REASONS},
        "slimline_reloads_total": {("outcome", "loaded"), ("outcome", "refused")},
        "slimline_errors_total": {("status", "500"), ("status", "503")},
    }
    found = samples(serve())
    for name, labels in wanted.items():
        series = {key[1]: value for key, value in found.items() if key[0] == name}
        assert series == {frozenset({label, *own}): 0 for label in labels}


def test_a_scan_grows_no_series(serve: Serve) -> None:
    client = serve()
    client.get("/nope")
    client.post("/v2/models/x/infer", json={})
    before = samples(client).keys()
    for number in range(300):
        client.get(f"/admin{number}.php")
        client.post(f"/v2/models/m{number}/infer", json={})
        client.request(f"M{number}", "/predict")
        client.post("/predict", json={"inputs": {f"i{number}": []}, "id": f"id{number}"})
    grown = samples(client).keys() - before
    assert {dict(labels).get("status") for _, labels in grown} <= {"400", "405"}


def test_what_is_not_stored_as_it_came_is_counted(
    serve: Serve, release: Path, rows: NDArray[np.float32], tmp_path: Path
) -> None:
    """An id used twice, and a sample that fails: neither is a dropped event."""
    client = serve(event_store=f"sqlite:///{tmp_path}/events.db", sample=1.0)
    recorder = client.app.state.core.recorder  # type: ignore[attr-defined]
    recorder._sampler._releases = {digest(release): tmp_path / "gone"}
    for _ in range(3):
        client.post("/predict", json={"inputs": {"image": rows.tolist()}, "id": "one"})
    assert recorder._writer.flush(10)
    own = frozenset({("revision", digest(release)), ("variant", "default")})
    until(lambda: samples(client)["slimline_events_duplicates_total", own] == 2)
    found = samples(client)
    assert found["slimline_samples_failed_total", own] >= 1  # after one that fails it rests
    assert not [found[key] for key in found if key[0] == "slimline_events_dropped_total" and found[key]]


def test_help_and_units_are_declared() -> None:
    for family in Metrics().registry.collect():
        assert family.documentation.endswith(".")
        assert family.name.startswith("slimline_")
        assert family.type != "histogram" or family.name.endswith(("_seconds", "_rows"))


def test_a_killed_workers_gauges_are_forgotten(tmp_path: Path) -> None:
    for pid in (os.getpid(), 2**22 + 1):
        for kind in ("gauge_livesum", "counter"):
            (tmp_path / f"{kind}_{pid}.db").touch()
    sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"gauge_livesum_{os.getpid()}.db", f"counter_{os.getpid()}.db", f"counter_{2**22 + 1}.db"}


def test_an_error_is_counted_by_its_status(serve: Serve, release: Path) -> None:
    client = serve()
    client.post("/predict", json={})
    own: Any = {("revision", digest(release)), ("variant", "default"), ("status", "400")}
    assert samples(client)["slimline_errors_total", frozenset(own)] == 1


def test_an_answer_of_several_labels_counts_for_each() -> None:
    metrics = Metrics()
    series = Series(metrics, "r", "v", ["cat", "dog", "fox"])
    series.answered({}, 3, ["cat,dog", "dog", ""], 3)
    series.flush()
    own = {"revision": "r", "variant": "v"}
    for label, count in (("cat", 1), ("dog", 2), ("fox", 0)):
        assert metrics.registry.get_sample_value("slimline_predictions_total", {"label": label, **own}) == count
