"""What ``slimline sensitivity`` writes stands in the report, beside the layers of the artifact that was studied."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimline import layer_study, manifest, measure, params
from slimline.layer_study import Result, Trial
from slimline.report import layers

from .conftest import project_of
from .page import Page, number, table
from .project import Project

COLUMN = "minds most"


@pytest.fixture
def project(compressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = project_of(compressed, tmp_path)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def results(project: Project, monkeypatch: pytest.MonkeyPatch) -> dict[Trial, Result]:
    """A study of the pruned network, written where the command writes it."""
    monkeypatch.setattr(measure, "LAYER_ROUNDS", 2)
    monkeypatch.setattr(measure, "LAYER_REPEATS", 3)
    settings = params.load()
    found = layer_study.run("prune", settings, rows=60, methods=["symmetric", "n-m"])
    layer_study.write(Path("sensitivity"), "prune", found, settings)
    return found


def test_each_layer_says_what_it_minds_most(project: Project, results: dict[Trial, Result]) -> None:
    html, markdown = project.report()
    rows = table(markdown, "Layers of prune")
    assert {"3", "6", "11"} <= {trial.layer for trial in results}
    for layer in ("0", "3", "6", "11"):
        drops = {
            f"by {trial.method}, {trial.strength}": each.drop for trial, each in results.items() if trial.layer == layer
        }
        shown, _, why = rows[layer][COLUMN].partition(" (")
        worst = max(drops.values())
        assert number(shown.replace("±", "")) == pytest.approx(worst, abs=5e-5)
        assert shown.endswith(" lost")
        assert drops[why.removesuffix(")")] == worst
    assert any(COLUMN in row for row in Page(html).rows)
    assert "Minds most: " in html


def test_stages_that_were_not_studied_have_no_such_column(project: Project, results: dict[Trial, Result]) -> None:
    assert results
    shown = {each.stage: COLUMN in each.table.head for each in layers.of_stages(project.study())}
    assert shown == {"prune": True, "quantize": False, "factorize": False}


def test_a_study_of_another_artifact_is_left_out(project: Project, results: dict[Trial, Result]) -> None:
    assert results
    path = project.root / "exports/prune/facts.json"
    manifest.write_json(path, {**manifest.read_json(path), "artifact": "sha256:made-anew"})
    assert project.study().sensitivity == {}


def test_what_single_layers_cost_is_remembered_and_no_study(project: Project, results: dict[Trial, Result]) -> None:
    """The report read the cache too, in a form that it no longer has."""
    assert results
    assert list((project.root / ".slimline/sensitivity").glob("*.json"))
    (project.root / "sensitivity/prune.json").unlink()
    assert project.study().sensitivity == {}
