from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from slimline import artifact, layer_study, measure, params
from slimline.artifact import Artifact
from slimline.errors import ArtifactError, MethodError, ParamsError
from slimline.layer_study import Result, Trial
from slimline.method import Alone
from slimline.methods.structured import Structured
from slimline.methods.tucker2 import Tucker2
from slimline.models.cnn import Cnn
from slimline.project.layout import tasks
from slimline.sensitivity import CACHE, Cost, Sensitivity
from slimline.stage import Stage


@pytest.fixture
def settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cnn: Cnn, described: dict[str, Artifact]
) -> params.Params:
    """A project folder with one artifact, and its params."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "LAYER_ROUNDS", 2)
    monkeypatch.setattr(measure, "LAYER_REPEATS", 3)
    document = yaml.safe_load(tasks()["digits"].read_text())
    document["limit"], document["target"]["batch_sizes"] = 150, [1]
    Path("params.yaml").write_text(yaml.safe_dump(document))
    artifact.save(Path("artifacts/teacher"), cnn, described["cnn"])
    return params.load()


def test_each_layer_is_measured_by_each_method_that_takes_it(settings: params.Params) -> None:
    results = layer_study.run("teacher", settings, rows=100)
    assert {trial.layer for trial in results} == {"0", "3", "6", "11"}
    everywhere = {"linear", "symmetric", "magnitude"}
    assert {trial.method for trial in results if trial.layer == "11"} == everywhere | {"n-m", "svd"}
    kernels = {"structured", "n-m", "tucker2", "spatial", "cp"}
    assert {trial.method for trial in results if trial.layer == "3"} == everywhere | kernels
    intervals = [(result.drop_ci, result.drop) for result in results.values()]
    assert all(each is not None and each[0] <= drop <= each[1] for each, drop in intervals)
    assert all(result.divergence >= 0 for result in results.values())

    harsh, mild = (results[Trial("3", "linear", f"{bits} bits")] for bits in (2, 8))
    assert harsh.divergence > 10 * mild.divergence
    assert harsh.gain is None  # no kernel runs 2-bit weights
    assert mild.gain is not None
    assert abs(mild.drop) <= 0.03
    assert results[Trial("3", "magnitude", "50% zero")].gain == 1  # the same dense kernel
    half, narrow = (results[Trial("3", "structured", f"{share} gone")] for share in ("50%", "90%"))
    assert narrow.rise > half.rise

    lines = layer_study.write(Path("out"), "teacher", results, settings)
    assert lines[0].startswith("| layer | method | strength | drop of accuracy")
    assert {path.name for path in Path("out").iterdir()} == {"teacher.md", "teacher.json", "teacher.png"}
    rows = json.loads(Path("out/teacher.json").read_text())["trials"]
    assert len(rows) == len(results)


def test_a_method_that_cannot_take_the_model_is_left_out_unless_it_was_named(
    settings: params.Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> dict[str, Alone]:
        raise MethodError("sensitivity: structured: an embedding, whose channels stay")

    monkeypatch.setattr(Structured, "alone", refuse)
    monkeypatch.setattr(layer_study, "GRID", {name: layer_study.GRID[name] for name in ("structured", "n-m")})
    assert {trial.method for trial in layer_study.run("teacher", settings, rows=50)} == {"n-m"}
    assert capsys.readouterr().out == "left out: sensitivity: structured: an embedding, whose channels stay\n"
    with pytest.raises(MethodError):
        layer_study.run("teacher", settings, rows=50, methods=["structured"])


def test_a_second_run_measures_nothing(settings: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    first = layer_study.run("teacher", settings, methods=["svd", "n-m"])
    assert {trial.method for trial in first} == {"svd", "n-m"}

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Sensitivity, "_measure", never)
    monkeypatch.setattr(measure, "layers", never)
    assert layer_study.run("teacher", settings, methods=["svd", "n-m"]) == first
    assert layer_study.run("artifacts/teacher", settings, methods=["svd", "n-m"]) == first  # its folder is it, too


def test_other_weights_rows_and_code_are_measured_anew(
    settings: params.Params, monkeypatch: pytest.MonkeyPatch, cnn: Cnn, described: dict[str, Artifact]
) -> None:
    def files() -> int:
        return len([path for path in CACHE.iterdir() if not path.name.startswith("times-")])

    layer_study.run("teacher", settings, methods=["n-m"])
    layer_study.run("teacher", settings, rows=50, methods=["n-m"])
    assert files() == 2
    nn.init.normal_(cnn.get_parameter("3.weight"))
    artifact.save(Path("elsewhere/net"), cnn, described["cnn"])
    layer_study.run("elsewhere/net", settings, methods=["n-m"])
    assert files() == 3
    monkeypatch.setattr("slimline.sensitivity.code_version", lambda _: "another")
    layer_study.run("teacher", settings, methods=["n-m"])
    assert files() == 4


def test_a_killed_study_goes_on_where_it_was(settings: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []
    real = Sensitivity._measure

    def killed(study: Sensitivity, changed: nn.Module) -> Any:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(changed)
        return real(study, changed)

    monkeypatch.setattr(Sensitivity, "_measure", killed)
    with pytest.raises(KeyboardInterrupt):
        layer_study.run("teacher", settings, methods=["magnitude"])
    measured.clear()
    monkeypatch.setattr(Sensitivity, "_measure", lambda study, changed: measured.append(1) or real(study, changed))
    results = layer_study.run("teacher", settings, methods=["magnitude"])
    assert len(measured) == len(results) - 3


def test_a_damaged_cache_costs_time_and_nothing_else(settings: params.Params) -> None:
    first = layer_study.run("teacher", settings, methods=["n-m"])
    for path in CACHE.iterdir():
        path.write_text('{"format": 2, "costs"')
    again = layer_study.run("teacher", settings, methods=["n-m"])
    assert {trial: result.rise for trial, result in again.items()} == {t: r.rise for t, r in first.items()}


def test_wrong_names_are_told_with_near_misses(settings: params.Params) -> None:
    with pytest.raises(ParamsError, match=r"--methods: 'tucker' is not studied. Did you mean 'tucker2'\?"):
        layer_study.run("teacher", settings, methods=["tucker"])
    with pytest.raises(ArtifactError, match=r"techer: neither a stage .* Did you mean 'teacher'\? There are: teacher"):
        layer_study.run("techer", settings)


def test_without_calibration_rows_one_line_says_so(settings: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "batches", lambda *_: lambda: iter(()))
    with pytest.raises(MethodError, match="sensitivity: the calibration split has no rows"):
        layer_study.run("teacher", settings)


def test_layers_alike_share_one_time(settings: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = measure.layers
    monkeypatch.setattr(measure, "layers", lambda *args: asked.append(1) or real(*args))
    alike = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    times = layer_study.Times(alike, settings.target, {"x": torch.zeros(1, 4, 8, 8)})

    def split(name: str) -> Alone:
        pair = nn.Sequential(nn.Conv2d(4, 2, 1, bias=False), nn.Conv2d(2, 4, 3, padding=1))
        layers = {each: pair if each == name else layer for each, layer in alike.named_children()}
        return Alone({"ranks": [2]}, lambda: nn.Sequential(*layers.values()), (name,))

    gains = {times.gain(Tucker2(), name, split(name)) for name in "012"}
    assert len(gains) == len(asked) == 1


def test_the_matrix_leaves_out_what_no_method_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_study, "GRID", {"a": {"x": {}}, "b": {"y": {}, "z": {}}})
    results = {
        Trial("one", "a", "x"): Result(0.1, [0.0, 0.2], 0.5, 0.01, 2.0),
        Trial("two", "b", "y"): Result(0.2, [0.1, 0.3], 0.6, 0.02, None),
    }
    layers, columns, drops, gains = layer_study.matrix(results)
    assert (layers, columns) == (["one", "two"], ["a x", "b y"])
    np.testing.assert_array_equal(np.isnan(drops), [[False, True], [True, False]])
    assert gains[0, 0] == 2.0
    assert layer_study.table(results, "accuracy")[2] == (
        "| two | b | y | +0.2000 | [+0.1000, +0.3000] | +0.6000 | 0.02 | storage only |"
    )


def test_an_interval_stands_beside_the_metric_it_belongs_to_alone() -> None:
    answers = (80, 6, 2, 12)  # 4 of 100 right answers lost
    share, other = (Cost(rise=0.1, divergence=0.1, drop=drop, answers=answers) for drop in (0.04, 0.07))
    interval = share.interval(0.95)
    assert interval is not None
    assert interval[0] < 0.04 < interval[1]
    assert other.interval(0.95) is None
    lines = layer_study.table({Trial("3", "svd", "1/2"): Result(0.07, None, 0.1, 0.1, 1.0)}, "macro_f1")
    assert "| +0.0700 | – | +0.1000 |" in lines[-1]
