"""Quality rows and releases, on real exports of a tiny model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from torch import nn

from slimline import benchmark, gate, manifest, params, release
from slimline.export.onnx import export
from slimline.models.cnn import Cnn
from slimline.params import Budget
from slimline.predictor import Predictor
from slimline.stage import Stage
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.tasks.text import text


@pytest.fixture
def exported(cnn: nn.Module, task: Digits, tmp_path: Path) -> Path:
    """Two sealed exports of one model, ``teacher`` and ``quantize``."""
    for stage in ("teacher", "quantize"):
        with manifest.sealed(tmp_path / stage) as scratch:
            export(cnn, task.signature(), scratch, {})
            manifest.write_json(scratch / "signature.json", task.signature())
            manifest.write_json(scratch / "preprocess.json", task.preprocess())
    return tmp_path


def test_a_model_against_itself_drops_nothing(task: Digits, splits: dict[str, Split], exported: Path) -> None:
    test = splits["test"]
    out = benchmark.outputs(Predictor(exported / "teacher", threads=1), test.inputs)
    assert out.shape == (len(test), 10)
    row = benchmark.quality(task, test, out, out, 0.95)
    assert row["accuracy_drop"] == 0
    assert row["drop_ci"][0] <= 0 <= row["drop_ci"][1]
    assert row["agreement"] == 1
    assert set(row["per_class"]) == set(task.labels)


def test_quality_counts_what_changed(task: Digits, splits: dict[str, Split]) -> None:
    test = splits["test"]
    right = np.eye(10, dtype=np.float32)[test.targets]
    wrong = right.copy()
    wrong[:30] = np.roll(right[:30], 1, axis=1)
    row = benchmark.quality(task, test, right, wrong, 0.95)
    assert row["accuracy_drop"] == pytest.approx(30 / len(test))
    assert row["drop_ci"][0] < 30 / len(test) < row["drop_ci"][1]
    assert row["drops"]["macro_f1"]["ci"][0] < row["drops"]["macro_f1"]["drop"] < row["drops"]["macro_f1"]["ci"][1]
    assert row["agreement"] == pytest.approx(1 - 30 / len(test))


def many_labels(rows: int = 400) -> tuple[Any, Split, NDArray[np.float32]]:
    """Return a task of any of three labels, rows of it, and outputs that are always right."""
    task = text(answer="many", data="none.csv", tokenizer="none", labels=["late", "sport", "none"])
    y = (np.random.default_rng(0).random((rows, 3)) < [0.5, 0.3, 0.0]).astype(np.float32)
    return task, Split({"input_ids": np.zeros((rows, 4), np.int64)}, y), 4 * y - 2


def test_each_of_several_labels_has_its_recall_and_its_floor() -> None:
    task, test, right = many_labels()
    mine = np.flatnonzero(test.targets[:, 1])
    own = right.copy()
    own[mine[:30], 1] = -1  # missed
    own[np.flatnonzero(test.targets[:, 1] == 0)[:50], 1] = 1  # answered for nothing: no recall knows of it
    row = benchmark.quality(task, test, right, own, 0.95)
    assert set(row["per_class"]) == {"late", "sport"}, "no row has the third one"
    sport, late = row["per_class"]["sport"], row["per_class"]["late"]
    assert sport["rows"] == len(mine)
    assert sport["recall"] == pytest.approx(1 - 30 / len(mine))
    assert sport["drop"] == pytest.approx(30 / len(mine))
    assert sport["drop_ci"][0] < sport["drop"] < sport["drop_ci"][1]
    assert (sport["harmed"], late["harmed"]) == (True, False)
    assert (late["recall"], late["drop"]) == (1, 0)
    assert row["micro_f1"] < 1
    measured = {"target": {"batch_sizes": [1]}, "stages": {"quantize": {**row, "speedup": {}}}}
    for floor, ok in ((sport["recall_ci"][0] - 0.01, True), (sport["recall_ci"][0] + 0.01, False)):
        (check,) = gate.judge(Budget.model_validate({"min_recall": {"sport": floor}}), measured, "quantize")
        assert (check.what, check.ok) == ("recall of sport", ok)


def test_no_error_in_few_rows_is_no_proof(task: Digits, splits: dict[str, Split]) -> None:
    test = splits["test"].head(40)
    right = np.eye(10, dtype=np.float32)[test.targets]
    row = benchmark.quality(task, test, right, right, 0.95)
    assert row["drops"]["macro_f1"]["ci"] == row["drops"]["accuracy"]["ci"]
    assert row["drops"]["macro_f1"]["ci"][1] > 0.05


def test_a_release_answers_its_goldens_and_names_its_revision(
    splits: dict[str, Split], exported: Path, tmp_path: Path
) -> None:
    rows = {"accuracy": 0.9, "agreement": 1.0, "latency_ms": {}, "threads": 1}
    measured = {"stages": {"teacher": rows, "quantize": rows}}
    params = {"task": {"name": "digits"}, "budget": {"max_drop": {"accuracy": 0.01}}}
    target = tmp_path / "release"
    revision = release.build(target, exported, ["teacher", "quantize"], measured, params, splits["validation"], [])
    predictor = Predictor(target)
    assert predictor.revision == revision == manifest.verify(target)
    golden = np.load(target / "golden.npz")
    np.testing.assert_allclose(
        predictor.predict({"image": golden["input/image"]})["logits"], golden["output/quantize"], atol=1e-5
    )
    assert manifest.read_json(target / "monitoring/objectives.json")["floors"] == {"accuracy": pytest.approx(0.89)}


def test_a_release_holds_references_of_so_many_rows(splits: dict[str, Split], exported: Path, tmp_path: Path) -> None:
    """Monitoring compares production with 2000 rows and start-up with 16; more would only make the release heavier."""
    validation = Split(*splits["validation"][np.arange(2100) % len(splits["validation"])])
    head, start = validation.head(2000), validation.head(16)
    row = {"agreement": 1.0, "latency_ms": {}, "threads": 1}
    measured = {"stages": {"teacher": row, "quantize": row}}
    target, params = tmp_path / "release", {"task": {"name": "digits"}}
    release.build(target, exported, ["teacher", "quantize"], measured, params, validation, [])
    reference, golden = np.load(target / "reference.npz"), np.load(target / "golden.npz")
    assert (len(reference["targets"]), len(golden["targets"])) == (2000, 16)
    np.testing.assert_array_equal(reference["targets"], head.targets)
    for stage in ("teacher", "quantize"):
        predictor = Predictor(target / "chain" / stage, threads=1)
        for found, rows in ((reference, head), (golden, start)):
            expected = predictor.predict({"image": rows.inputs["image"]})["logits"]
            np.testing.assert_allclose(found[f"output/{stage}"], expected, atol=1e-4)
    np.testing.assert_allclose(reference["input_mean/image"], head.inputs["image"].mean(0, dtype=np.float64), atol=1e-5)
    card = manifest.read_json(target / "card.json")
    assert card["rows"] == {"split": "validation", "golden": 16, "reference": 2000}


def test_peak_memory_is_that_of_a_process_without_torch(exported: Path) -> None:
    assert 20 < benchmark.peak_rss_mb(exported / "teacher", 32, 1) < 200


class Loss(Digits):
    """Digits with a secondary metric that falls when things get better."""

    def metrics(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        log_loss = -np.log(np.clip(out[np.arange(len(y)), y], 1e-6, None)).mean()
        return super().metrics(out, y) | {"log_loss": float(log_loss)}

    def higher_is_better_of(self, metric: str) -> bool:
        return metric != "log_loss" and super().higher_is_better_of(metric)


def test_a_rise_of_what_should_fall_is_a_drop(splits: dict[str, Split]) -> None:
    test = splits["test"]
    sure = np.eye(10, dtype=np.float32)[test.targets] * 0.9 + 0.01
    unsure = np.full_like(sure, 0.1)
    row = benchmark.quality(Loss(), test, sure, unsure, 0.95)
    drop = row["drops"]["log_loss"]
    assert drop["drop"] == pytest.approx(np.log(0.91) - np.log(0.1), abs=0.02)
    assert 0 < drop["ci"][0] <= drop["drop"] <= drop["ci"][1]
    assert row["lower_is_better"] == ["log_loss"]


class Costly(Loss):
    """Digits whose primary metric falls when things get better."""

    primary = "log_loss"
    higher_is_better = False


class ErrorRate:
    """A metric of somebody's own: the share of wrong answers."""

    higher_is_better = False

    def __call__(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        return float(np.mean(answers != targets))


@pytest.mark.parametrize("worse", [True, False], ids=["worse", "better"])
def test_the_direction_of_a_primary_and_of_a_plug_in_decides_the_sign_of_its_drop(
    splits: dict[str, Split], worse: bool
) -> None:
    test, name = splits["test"], f"{__name__}:ErrorRate"
    sure = np.eye(10, dtype=np.float32)[test.targets] * 0.9 + 0.01
    mistaken = sure.copy()
    mistaken[:60] = np.roll(sure[:60], 1, axis=1)
    base, own = (sure, mistaken) if worse else (mistaken, sure)
    row = benchmark.quality(Costly(), test, base, own, 0.95, [name])
    sign = 1 if worse else -1
    share = 60 / len(test)
    assert row["drops"][name]["drop"] == pytest.approx(sign * share)
    assert row["log_loss_drop"] == pytest.approx(sign * share * np.log(0.91 / 0.01), rel=1e-4)
    assert row["drops"]["accuracy"]["drop"] == pytest.approx(sign * share)
    for drop, (low, high) in (
        (row["drops"][name]["drop"], row["drops"][name]["ci"]),
        (row["log_loss_drop"], row["drop_ci"]),
    ):
        assert low < drop < high
        assert low * sign > 0, "sixty rows are no chance"
        assert high * sign > 0
    assert set(row["lower_is_better"]) == {"log_loss", name}


def test_engines_are_targets_that_were_built_not_run() -> None:
    engine = {
        "status": "built", "bytes": 7, "library": "tensorrt-rtx 1.7.1.116", "compute": [86],
        "profile": {"x": [[1], [8], [32]]}, "engine": "model.engine",
    }  # fmt: skip
    facts = {
        "teacher": {"formats": {"onnx-trt": {"status": "run", "bytes": 5}}},
        "quantize": {"formats": {"onnx-trt": {"status": "run", "bytes": 5}, "tensorrt": engine}},
        "prune": {},
    }
    (target,) = benchmark.engine_targets(facts, threads=2, ran={}).items()
    assert target[0] == "tensorrt-rtx/tensorrt/t2"
    assert target[1]["status"] == "built"
    assert list(target[1]["stages"]) == ["quantize"]
    assert target[1]["stages"]["quantize"]["compute"] == [86]
    (target,) = benchmark.engine_targets(facts, threads=2, ran={"quantize": {"speedup": {"1": 3.0}}}).items()
    assert target[1]["status"] == "run"
    assert target[1]["stages"]["quantize"]["speedup"] == {"1": 3.0}


@pytest.mark.parametrize("knows", [False, True])
def test_the_stage_records_a_teacher_that_guesses_and_how_busy_the_machine_was(
    cnn: nn.Module, task: Digits, document: dict[str, Any], project: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, knows: bool,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    facts = {"params": 1, "macs": 1, "bytes": 1, "sparsity": 0.0, "bits": {}, "variant": "fp32"}
    for stage in ("teacher", "quantize"):
        with manifest.sealed(Path("exports") / stage) as scratch:
            export(cnn if knows else Cnn(width=2), task.signature(), scratch, {})
            manifest.write_json(scratch / "signature.json", task.signature())
            manifest.write_json(scratch / "preprocess.json", task.preprocess())
            manifest.write_json(scratch / "facts.json", facts)
    speed = {"machine": {}, "spread": 1.31, "engines": {}, "runtimes": {}}
    rows = {stage: {"runtime": "onnxruntime"} for stage in ("teacher", "quantize")}
    manifest.write_json(Path("metrics/latency.json"), speed | {"stages": rows})
    written = {**document, "task": {"name": "digits"}, "export": {"stages": ["teacher", "quantize"]}}
    Path("params.yaml").write_text(yaml.safe_dump(written))
    spec = importlib.util.spec_from_file_location("benchmark_script", project / "stages/benchmark.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(Stage("benchmark", params.load(), None))
    found = manifest.read_json(benchmark.FILE)
    assert found["spread"] == 1.31
    assert ("teacher_at_chance" in found) is not knows
    if not knows:
        told = found["teacher_at_chance"]
        assert told["margin"] <= 0
        assert f"of {found['rows']['test']} test answers are right" in told["fact"]
