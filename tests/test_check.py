"""``slimline check`` on losses, teachers and kept blocks; the e2e tests run it on everything else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from slimline import check, engines, params
from slimline.errors import ParamsError, SlimlineError
from slimline.models.resnet import ResNet
from slimline.tasks.text import text

BIG = {"from": "teacher", "model": {"name": "cnn"}, "training": {"epochs": 1, "lr": 0.01}}


class Folder:
    """A project folder with the small chain and the project's own dvc.yaml."""

    def __init__(self, document: dict[str, Any], dvc_file: str) -> None:
        self.document = document
        self.dvc_file = dvc_file
        document["distill"]["teacher"] = "teacher"
        document |= {
            "limit": None,
            "target": {"runtime": "onnxruntime", "batch_sizes": [1]},
            "latency": {},
            "benchmark": {},
            "monitor": {},
        }
        document["export"] |= {"formats": ["onnx"], "samples": 10, "min_agreement": 0.9}
        document["budget"] = {"confidence": 0.9, "max_drop": {}}

    def check(self, **distill: Any) -> None:
        self.document["distill"] |= distill
        Path("params.yaml").write_text(yaml.safe_dump(self.document))
        Path("dvc.yaml").write_text(self.dvc_file)
        check.check()

    def mistake(self, **distill: Any) -> str:
        with pytest.raises(SlimlineError) as caught:
            self.check(**distill)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def folder(document: dict[str, Any], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(document, (project / "dvc.yaml").read_text())


def recall_budget(document: dict[str, Any], label: str, out: np.ndarray, y: np.ndarray, **args: Any) -> None:
    """Check a floor of a label's recall for a task of texts."""
    settings = params.parse(document | {"budget": {"min_recall": {label: 0.5}}})
    task = text(data="none.csv", tokenizer="none", **args)
    check._check_budget(settings, task, out, y, Path("params.yaml"))


def test_recall_by_label_is_a_budget_of_rows_with_several(document: dict[str, Any]) -> None:
    many = {"answer": "many", "labels": ["a", "b"]}
    out, y = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    recall_budget(document, "a", out, y, **many)
    with pytest.raises(ParamsError, match=r"^params\.yaml: budget\.min_recall\.c: not measured\..* Measured: a, b$"):
        recall_budget(document, "c", out, y, **many)


def test_recall_by_label_is_no_budget_of_numbers(document: dict[str, Any]) -> None:
    """The gate would find out only once everything has run."""
    out, y = np.zeros((2, 1), np.float32), np.ones(2, np.float32)
    with pytest.raises(
        ParamsError, match=r"^params\.yaml: budget\.min_recall\.a: recall is .* max_drop\.rmse instead$"
    ):
        recall_budget(document, "a", out, y, answer="number", tolerance=0.1)


def test_a_metric_of_labels_is_none_of_numbers(document: dict[str, Any]) -> None:
    """It was 0 for every stage, and its drop 0."""
    out, y = np.zeros((2, 1), np.float32), np.ones(2, np.float32)
    settings = params.parse(document | {"benchmark": {"metrics": ["macro-f1"]}})
    task = text(data="none.csv", tokenizer="none", answer="number", tolerance=0.1)
    message = r"^params\.yaml: benchmark\.metrics: macro-f1 counts labels, and this task's answers are numbers$"
    with pytest.raises(ParamsError, match=message):
        check._check_budget(settings, task, out, y, Path("params.yaml"))


def test_a_file_that_lacks_more_than_the_last_layer_is_refused(folder: Folder) -> None:
    """It was trained from, with random numbers in the layers that it lacks."""
    teacher = folder.document["teacher"]
    state = ResNet(**teacher["model"]["args"]).state_dict()
    torch.save({name: each for name, each in state.items() if not name.startswith("fc.")}, "body.pt")
    torch.save({name: each for name, each in state.items() if name.startswith("fc.")}, "last.pt")
    teacher["weights"] = "body.pt"
    folder.check()
    teacher["weights"] = "last.pt"
    message = rf"^params\.yaml: teacher\.weights: last\.pt: it has no conv\.weight \(\d\d of {len(state)} tensors"
    assert re.match(message, folder.mistake())


@pytest.mark.parametrize("name", ["heads", "neurons"])
def test_parts_that_a_model_does_not_have_are_told_before_training(folder: Folder, name: str) -> None:
    folder.document["prune"]["methods"] = [{"name": name}]
    assert folder.mistake() == f"params.yaml: prune.methods.0: {name} found no {name} in this model"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("deploymnt", "monitor.undo.target: no plug-in 'deploymnt' among slimline.targets"),
        ({"name": "deployment", "variant": "v.json"}, "monitor.undo.target.variant: unknown key of 'deployment'"),
        ({"name": "webhook", "url": "deployer:8080"}, "monitor.undo.target.url: string should match pattern"),
    ],
)
def test_a_wrong_target_is_told_before_the_first_alarm(folder: Folder, target: Any, message: str) -> None:
    folder.document["monitor"] = {"undo": {"target": target}}
    assert folder.mistake().startswith(f"params.yaml: {message}")


def test_a_list_of_losses_passes(folder: Folder) -> None:
    hint = {"name": "hint", "layers": {"3": "stages.0"}}
    folder.document["distill"]["model"] = {"name": "resnet", "args": {"depth": 8}}
    folder.check(
        loss=[
            {"name": "hard", "weight": 0.3, "label_smoothing": 0.1},
            {"name": "soft", "weight": 0.7, "temperature": 4},
            {**hint, "layers": {"stages.1": "stages.1"}},
            {"name": "attention", "layers": {"stages.0": "stages.0"}},
            {"name": "relational"},
            {"name": "decoupled", "beta": 2},
        ]
    )


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ([], "distill.loss: list should have at least 1 item"),
        (3, "distill.loss: input should be a valid dictionary"),
        ([{"weight": 1}], "distill.loss.0.name: missing; it has no default"),
        ([{"name": "hard"}, {"name": "soft", "weight": -1}], "distill.loss.1.weight: input should be greater than"),
        (
            [{"name": "hard"}, {"name": "soft", "wieght": 1}],
            "distill.loss.1.wieght: unknown key of 'soft'. Did you mean 'weight'?",
        ),
        ({"name": "soft", "temprature": 1}, "distill.loss.temprature: unknown key of 'soft'. Did you mean"),
        ([{"name": "hard"}, {"name": "sotf"}], "distill.loss.1: no plug-in 'sotf' among slimline.losses"),
        ([{"name": "hint", "layers": {"33": "stages.0"}}], "distill.loss.0.layers: no layer '33' in the student."),
        (
            [{"name": "hard"}, {"name": "hint", "layers": {"3": "stage.0"}}],
            "distill.loss.1.layers: no layer 'stage.0' in the teacher. Did you mean 'stages.0'?",
        ),
        (
            {"name": "attention", "layers": {"11": "fc"}},
            "distill.loss.layers: 11 and fc give [10] and [10] a row; both must have one height and width",
        ),
    ],
    ids=["none", "number", "no name", "weight", "unknown", "single", "plug-in", "student", "teacher", "shapes"],
)
def test_a_wrong_loss_is_named_with_its_key(folder: Folder, loss: Any, message: str) -> None:
    assert folder.mistake(loss=loss).startswith(f"params.yaml: {message}")


def test_losses_of_a_recovery_are_checked_too(folder: Folder) -> None:
    recovery = folder.document["prune"]["recovery"] = dict(folder.document["prune"]["recovery"])
    recovery["loss"] = [{"name": "soft"}, {"name": "hint", "layers": {"anything": "stage.0"}}]
    assert folder.mistake().startswith("params.yaml: prune.recovery.loss.1.layers: no layer 'stage.0' in the teacher.")
    recovery["loss"][1]["layers"] = {"anything": "stages.0"}
    folder.check()
    recovery |= {"epochs": 0, "loss": {"name": "hint", "layers": {"anything": "stage.0"}}}
    folder.check()


def test_blended_rows_without_a_loss_for_them_are_found_before_training(folder: Folder) -> None:
    folder.document["distill"]["training"] = {"epochs": 1, "lr": 0.1, "mixup": 0.5}
    assert folder.mistake(loss={"name": "hard"}).startswith("params.yaml: distill.training.mixup: blended rows")
    folder.check(loss=[{"name": "hard"}, {"name": "soft"}])


def test_kept_blocks_are_checked(folder: Folder) -> None:
    assert folder.mistake(keep={"stages.0": []}).startswith(
        "params.yaml: distill.keep: it takes blocks of the input model, and 'model' builds another"
    )
    assert folder.mistake(model=None, keep={"stage.0": []}).startswith(
        "params.yaml: distill.keep: 'stage.0' is no list of blocks. Did you mean 'stages.0'?"
    )
    assert folder.mistake(keep={"stages.1": []}).startswith("params.yaml: distill.keep: block stages.1.0 can't go")
    folder.check(keep={"stages.0": []}, loss=[{"name": "hint", "layers": {"stages.0": "stages.0"}}])


# --- several teachers ------------------------------------------------------------------------------------------------


def test_a_teacher_that_the_stage_stands_on_needs_no_line(folder: Folder) -> None:
    folder.document["prune"]["recovery"] = {**folder.document["prune"]["recovery"], "teachers": ["distill", "teacher"]}
    folder.check()


def test_another_teacher_needs_a_line_in_dvc_yaml(folder: Folder) -> None:
    folder.document["big"] = BIG
    stages = yaml.safe_load(folder.dvc_file)
    stages["stages"]["big"] = {"cmd": "true", "outs": ["artifacts/big"]}
    folder.dvc_file = yaml.safe_dump(stages)
    line = "add artifacts/big/manifest.json: params.yaml names it among the teachers"
    assert folder.mistake(teachers=["big"]) == f"dvc.yaml: stages.distill.deps: {line}"
    folder.check(teacher="big", teachers=["teacher"])
    stages["stages"]["distill"]["deps"].append("artifacts/big/manifest.json")
    folder.dvc_file = yaml.safe_dump(stages)
    folder.check(teacher="teacher", teachers=["big"])


def test_an_unknown_teacher_is_named(folder: Folder) -> None:
    assert folder.mistake(teachers=["techer"]).startswith("params.yaml: distill: teacher: no stage 'techer'. Did you")


# --- keys of methods that contradict each other ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "n-m", "n": 4, "m": 4}, "prune.methods.0.n: 4 of 4 leaves every weight; n must be below m"),
        ({"name": "magnitude", "ratio": 0.5, "start": 0.6}, "prune.methods.0.start: 0.6 is above ratio, 0.5"),
        ({"name": "magnitude", "ratio": 0.9, "max_ratio": 0.8}, "prune.methods.0.ratio: 0.9 is above max_ratio, 0.8"),
        ({"name": "structured", "of": "macs", "scope": "sensitivity"}, "prune.methods.0.scope: sensitivity shares out"),
        ({"name": "structured", "ratio": 0.99}, "prune.methods.0.ratio: 0.99 is above max_ratio, 0.75; raise that"),
        ({"name": "structured", "float_layers": ["0"]}, "prune.methods.0.float_layers: it is read with kernels: int8"),
        ({"name": "linear", "bits": "auto"}, "prune.methods.0.budget: bits: auto keeps to one of bytes, latency"),
        ({"name": "svd", "rank": {"ratio": 0.5}, "max_loss": 0.1}, "prune.methods.0.max_loss: it guards ranks"),
    ],
    ids=["n of m", "start", "max_ratio", "scope", "channels", "kernels", "budget", "max_loss"],
)
def test_keys_that_contradict_each_other_are_found_before_training(
    folder: Folder, method: dict[str, Any], message: str
) -> None:
    folder.document["prune"]["methods"] = [method]
    assert folder.mistake().startswith(f"params.yaml: {message}")


def test_a_schedule_without_recovery_is_found_before_training(folder: Folder) -> None:
    folder.document["prune"]["methods"] = [{"name": "magnitude", "schedule": "cubic"}]
    folder.check()
    folder.document["prune"]["recovery"] = {**folder.document["prune"]["recovery"], "epochs": 0}
    assert folder.mistake() == "params.yaml: prune.methods.0: magnitude needs training; give recovery epochs"


def test_what_is_timed_in_integers_is_what_quantize_will_not_skip(folder: Folder) -> None:
    timed = {"name": "structured", "of": "latency", "kernels": "int8"}
    folder.document["prune"]["methods"] = [timed]
    folder.check()
    folder.document["quantize"]["methods"] = [{"name": "linear", "skip": ["11"]}]
    assert folder.mistake() == (
        "params.yaml: prune.methods.0.float_layers: [], but quantize.methods.0.skip is ['11']; name the same layers, "
        "so that what is timed is what will run"
    )
    folder.document["prune"]["methods"] = [{**timed, "float_layers": ["11"]}]
    folder.check()
    folder.document["quantize"]["methods"] = [{"name": "linear", "skip": "auto"}]
    folder.check()


# --- keys of methods against the model's layers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "method", "message"),
    [
        ("prune", {"name": "magnitude", "skip": ["conv*"]}, ".skip: 'conv*' matches no layer; layers: 0, 3, 6, 11"),
        ("prune", {"name": "n-m", "skip": ["conv*"]}, ".skip: 'conv*' matches no layer; layers: 0, 3, 6, 11"),
        ("prune", {"name": "drop-layers", "keep": {"5": [0]}}, ".keep: '5' is no list of blocks. Lists: ''"),
        ("prune", {"name": "vocabulary"}, ": vocabulary works on texts, and this task has no tokenizer"),
        ("quantize", {"name": "linear", "skip": ["fc"]}, ".skip: 'fc' matches no layer; layers: 0, 3, 6, 9, 11"),
        ("quantize", {"name": "float16", "skip": ["fc"]}, ".skip: 'fc' matches no layer; layers: 0, 3, 6, 11"),
        ("quantize", {"name": "linear", "layers": {"fc": {"bits": 4}}}, ".layers: 'fc' matches no layer; layers: 0, 3"),
        (
            "quantize",
            {"name": "linear", "skip": ["0", "3"], "layers": {"[03]": {"bits": 4}}},
            ".layers: '[03]' names only layers that skip leaves out; layers that are left: 6, 9, 11",
        ),
        (
            "quantize",
            {"name": "linear", "ranges": "dynamic", "layers": {"11": {"bits": 4}}},
            ".layers: 11 gets activations of 4 bits, ranges: dynamic takes those of 8",
        ),
        ("factorize", {"name": "svd", "skip": ["fc"]}, ".skip: 'fc' matches no layer that can be factorized; layers: "),
        ("factorize", {"name": "structured", "importance": "bn-scale"}, ".importance: bn-scale needs a BatchNorm, and"),
        ("factorize", {"name": "sparsify", "kind": "bn-scale"}, ".kind: bn-scale needs a BatchNorm, and this model"),
    ],
    ids=[
        "magnitude", "n-m", "drop-layers", "vocabulary", "quantize", "float16", "layers", "only skipped", "dynamic",
        "factorize", "bn-scale", "sparsify",
    ],
)  # fmt: skip
def test_what_doesnt_fit_the_models_layers_is_found_before_training(
    folder: Folder, stage: str, method: dict[str, Any], message: str
) -> None:
    """The stage found it, hours later."""
    recovery = folder.document["prune"]["recovery"]
    folder.document[stage] = {**folder.document[stage], "methods": [method], "recovery": recovery}
    assert folder.mistake().startswith(f"params.yaml: {stage}.methods.0{message}")


def test_layers_to_be_timed_in_floating_point_are_found_before_training(folder: Folder) -> None:
    timed = {"name": "structured", "of": "latency", "kernels": "int8", "float_layers": ["fc"]}
    folder.document["prune"]["methods"] = [timed]
    folder.document["quantize"]["methods"] = [{"name": "float16"}]
    assert folder.mistake().startswith("params.yaml: prune.methods.0.float_layers: 'fc' matches no layer; layers: 0, 3")


def test_layers_that_an_earlier_method_decides_about_are_left_to_the_stage(folder: Folder) -> None:
    svd = {"name": "svd", "rank": {"ratio": 0.5}}
    folder.document["factorize"]["methods"] = [svd, {"name": "linear", "skip": ["11.0"]}]
    folder.check()
    folder.document["factorize"]["methods"] = [{"name": "linear", "skip": ["11.0"]}, svd]
    assert folder.mistake().startswith("params.yaml: factorize.methods.0.skip: '11.0' matches no layer")


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("installed", [True, False])
def test_a_format_whose_library_is_missing_is_found_before_training(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(engines, "_names", lambda: ["tensorrt_rtx"] if installed else [])
    folder.document["export"]["formats"] = ["onnx", "tensorrt"]
    if installed:
        folder.check()
    else:
        said = "TensorRT is not installed: pip install 'slimline[tensorrt]'"
        assert folder.mistake() == f"params.yaml: export.formats: tensorrt: {said}"


def test_a_dataclass_that_is_no_method_is_told(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "mine_that_is_no_method.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Half:\n    ratio: float = 0.5\n"
    )
    folder.document["prune"]["methods"] = [{"name": "mine_that_is_no_method:Half"}]
    assert folder.mistake() == (
        "params.yaml: prune.methods.0.name: 'mine_that_is_no_method:Half' is no method: a dataclass that extends "
        "slimline.method.Method is expected"
    )


@pytest.mark.parametrize("limit", [200, 10_000])
def test_a_limit_is_said_of_the_splits_that_it_cuts(folder: Folder, limit: int) -> None:
    folder.document["limit"] = limit
    folder.check()
    (rows,) = [line for line in check.check() if line.startswith("data: ") and line.endswith(" rows")]
    cut = re.findall(r"200 of [\d,]+ (\w+)", rows)
    assert cut == (["train", "validation", "test"] if limit == 200 else [])
    assert "at most" not in rows
