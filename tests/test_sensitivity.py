from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from slimline import artifact, params, sensitivity
from slimline.artifact import Artifact
from slimline.models.cnn import Cnn
from slimline.project import tasks
from slimline.sensitivity import Result, Trial


@pytest.fixture
def settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cnn: Cnn, described: dict[str, Artifact]
) -> params.Params:
    """A project folder with one artifact, and its params."""
    monkeypatch.chdir(tmp_path)
    document = yaml.safe_load(tasks()["digits"].read_text())
    document["limit"], document["target"]["batch_sizes"] = 150, [1]
    Path("params.yaml").write_text(yaml.safe_dump(document))
    artifact.save(Path("artifacts/teacher"), cnn, described["cnn"])
    return params.load()


def test_each_layer_is_measured_by_each_method_that_takes_it(settings: params.Params) -> None:
    results = sensitivity.run("teacher", settings, rows=100)
    assert {trial.layer for trial in results} == {"0", "3", "6", "11"}
    assert {trial.method for trial in results if trial.layer == "11"} == {"symmetric", "magnitude", "svd"}
    assert {trial.method for trial in results if trial.layer == "3"} == {"symmetric", "magnitude", "tucker2"}
    harsh, mild = (results[Trial("3", "tucker2", f"{ratio} of rank")] for ratio in (0.125, 0.5))
    assert harsh.drop >= mild.drop
    assert all(result.drop_ci[0] <= result.drop <= result.drop_ci[1] for result in results.values())
    assert all(result.gain > 0 for result in results.values())
    assert abs(results[Trial("3", "symmetric", "8 bits")].drop) <= 0.03

    lines = sensitivity.write(Path("out"), "teacher", results, settings)
    assert lines[0].startswith("| layer | method | strength | drop of accuracy")
    assert {path.name for path in Path("out").iterdir()} == {"teacher.md", "teacher.json", "teacher.png"}


def test_a_second_run_measures_nothing(settings: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "GRID", {"svd": {"half": {"rank": {"ratio": 0.5}, "multiple": 1}}})
    first = sensitivity.run("teacher", settings)

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(sensitivity, "_compress", never)
    assert sensitivity.run("teacher", settings) == first
    assert first


def test_the_matrix_leaves_out_what_no_method_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "GRID", {"a": {"x": {}}, "b": {"y": {}}})
    results = {
        Trial("one", "a", "x"): Result(0.1, [0.0, 0.2], 2.0),
        Trial("two", "b", "y"): Result(0.2, [0.1, 0.3], 1.0),
    }
    layers, columns, drops, gains = sensitivity.matrix(results)
    assert (layers, columns) == (["one", "two"], ["a x", "b y"])
    np.testing.assert_array_equal(np.isnan(drops), [[False, True], [True, False]])
    assert gains[0, 0] == 2.0
    assert sensitivity.table(results, "accuracy")[2].startswith("| two | b | y | +0.2000")
