"""The distill stage: whose layers the student is made of, and who teaches it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from slimline import artifact, manifest, params, stage
from slimline.artifact import Artifact
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.stage import Stage, compression

from .test_stage import _no_curves

Work = Callable[..., tuple[Any, Artifact]]
TRAINING = {"epochs": 1, "batch_size": 32, "lr": 0.01}


@pytest.fixture
def work(
    cnn: Cnn, resnet: ResNet, described: dict[str, Artifact], document: dict[str, Any], project: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Work:  # fmt: skip
    """Run a stage of a project whose artifacts are ``teacher`` (a cnn) and ``deep`` (a resnet); return what it made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "curves", _no_curves)  # DVCLive wants a git repository
    artifact.save(Path("artifacts/teacher"), cnn, described["cnn"])
    artifact.save(Path("artifacts/deep"), resnet, described["resnet"])
    spec = importlib.util.spec_from_file_location("distill_script", project / "stages" / "distill.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(name: str, section: dict[str, Any]) -> tuple[Any, Artifact]:
        written = {key: document[key] for key in ("task", "seed", "teacher", "export")}
        written |= {"deep": {"from": "teacher", "training": TRAINING}, name: section}
        Path("params.yaml").write_text(yaml.safe_dump(written))
        (script.main if name == "distill" else compression)(Stage(name, params.load(), 64))
        return artifact.load(Path("artifacts") / name)

    return run


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize("model", [None, {"name": "cnn", "args": {"width": 8}}], ids=["goes on", "born again"])
def test_a_model_may_be_taught_by_its_earlier_self(work: Work, cnn: Cnn, model: dict[str, Any] | None) -> None:
    """Born-again networks (Furlanello et al. 2018, arXiv:1805.04770): the same architecture, the teacher's answers."""
    student, described = work(
        "distill", {"from": "teacher", "teacher": "teacher", "model": model, "training": TRAINING}
    )
    digest = manifest.digest(Path("artifacts/teacher"))
    assert (described.parent, described.teacher) == (digest, digest)
    assert described.model.name == "cnn"
    assert {name: tensor.shape for name, tensor in student.state_dict().items()} == {
        name: tensor.shape for name, tensor in cnn.state_dict().items()
    }
    before, after = cnn.state_dict()["11.weight"], student.state_dict()["11.weight"]
    moved = float((before - after).norm() / before.norm())
    assert 0 < moved < 0.5 if model is None else moved > 0.5


def test_a_student_is_made_of_the_blocks_that_are_kept(work: Work, resnet: ResNet) -> None:
    section = {"from": "deep", "teacher": "deep", "keep": {"stages.0": []}, "training": TRAINING | {"lr": 1.0e-9}}
    student, described = work("distill", section)
    assert [edit.method for edit in described.edits] == ["drop-layers"]
    assert len(student.stages[0]) == 0
    torch.testing.assert_close(student.fc.weight, resnet.fc.weight, rtol=0, atol=1e-6)


def test_a_list_of_losses_teaches_and_its_regressor_stays_behind(work: Work, cnn: Cnn) -> None:
    hint = {"name": "hint", "weight": 2.0, "layers": {"conv": 2}}
    losses = [{"name": "hard", "weight": 0.3, "label_smoothing": 0.1}, {"name": "soft", "weight": 0.7}, hint]
    section = {"from": "deep", "teacher": "teacher", "training": TRAINING, "loss": losses}
    with_hint, described = work("distill", section)
    assert with_hint.state_dict().keys() == artifact.load(Path("artifacts/deep"))[0].state_dict().keys()
    assert described.teacher == manifest.digest(Path("artifacts/teacher"))
    without, _ = work("distill", {**section, "loss": losses[:2]})
    assert not same(with_hint, without)


def test_a_recovery_takes_the_same_losses_and_several_teachers(work: Work) -> None:
    losses = [{"name": "soft"}, {"name": "attention", "weight": 10, "layers": {8: 8}}]
    recovery = {**TRAINING, "teacher": "teacher", "teachers": ["deep"], "loss": losses}
    section = {"from": "teacher", "methods": [{"name": "structured", "multiple": 2}], "recovery": recovery}
    both, described = work("prune", section)
    digests = [manifest.digest(Path("artifacts") / name) for name in ("teacher", "deep")]
    assert described.teacher not in {None, *digests}
    alone, by_one = work("prune", {**section, "recovery": {**recovery, "teachers": []}})
    assert by_one.teacher == digests[0]
    assert not same(both, alone)
    again, _ = work("prune", {**section, "recovery": {**recovery, "teachers": ["teacher"]}})
    assert same(alone, again)


def test_layers_may_be_dropped_in_a_compression_too(work: Work) -> None:
    method = {"name": "drop-layers", "keep": {"stages.0": []}}
    made, described = work("prune", {"from": "deep", "methods": [method, {"name": "structured", "multiple": 2}]})
    assert [edit.method for edit in described.edits] == ["drop-layers", "structured"]
    assert len(made.stages[0]) == 0
