"""What ``make bench`` does on a tiny encoder and a tiny convolutional project, by the real tools; one that fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from slimline import artifact, benchmark, manifest, params, preprocess
from slimline.artifact import Artifact, Named
from slimline.export.onnx import export
from slimline.pipeline import ROOT
from slimline.stage import Stage
from tests.encoders import LABELS, texts, write_encoder, write_table
from tests.pictures import LABELS as COLOURS
from tests.pictures import write_folders

os.environ.setdefault("NNCF_CI", "1")
pytest.importorskip("nncf", reason="needs the extra peers")
pytest.importorskip("openvino", reason="needs the extra openvino")
pytest.importorskip("transformers", reason="needs the extra hf")

TRAINING = {"epochs": 1, "batch_size": 16, "lr": 0.001}
RECOVERY = {**TRAINING, "teacher": "teacher", "views": 1}
INT8 = {"from": "prune", "methods": [{"name": "linear"}], "recovery": RECOVERY}
Project = Callable[[str], Stage]


def document(task: dict[str, Any], model: dict[str, Any], keep: dict[str, list[int]]) -> dict[str, Any]:
    return {
        "task": task,
        "seed": 0,
        "teacher": {"model": model, "training": TRAINING},
        "distill": {"from": "teacher", "teacher": "teacher", "keep": keep, "training": TRAINING},
        "prune": {"from": "distill", "methods": [{"name": "structured", "ratio": 0.3}], "recovery": RECOVERY},
        "quantize": INT8,
        "export": {"stages": ["teacher", "distill", "quantize"]},
    }


def texts_document() -> dict[str, Any]:
    write_encoder(Path("model"))
    write_table(Path("t.csv"), texts(240))
    args = {"data": "t.csv", "tokenizer": "model", "labels": list(LABELS), "max_length": 16}
    model = {"name": "hf-encoder", "args": {"source": "model", "pooling": "mean", "classes": len(LABELS)}}
    return document({"name": "text", "args": args}, model, {"body.encoder.layer": [0]})


def images_document() -> dict[str, Any]:
    write_folders(Path("pictures"), 40)
    args = {"data": "pictures", "labels": COLOURS, "size": [32, 32]}
    model = {"name": "efficientnet-lite", "args": {"classes": len(COLOURS)}}
    return document({"name": "images", "args": args}, model, {"blocks": [0, 1, 3, 5, 8, 11, 15]})


DOCUMENTS = {"words": texts_document, "colours": images_document}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Return a function that lays out a workload whose chain has run: its three exports are the teacher's."""
    import peers

    for name, value in {"ROUNDS": 2, "REPEATS": 2, "PRUNED": (0.2,)}.items():
        monkeypatch.setattr(peers, name, value)

    def lay_out(name: str) -> Stage:
        Path("params.yaml").write_text(yaml.safe_dump(DOCUMENTS[name]()))
        stage = Stage(ROOT, params.load(), None)
        section = stage.params.teacher.model
        named = Named(section.name, section.args)
        torch.manual_seed(0)
        model = artifact.build_model(stage.task, named, "params.yaml: teacher.model")
        stage.splits["train"]  # a text task knows its labels' order from here on
        described = Artifact(Named(stage.params.task.name, stage.params.task.args), named, [], ROOT)
        artifact.save(artifact.FOLDER / ROOT, model, described)
        with manifest.sealed(Path("exports") / ROOT) as scratch:
            export(model, stage.task.signature(), scratch, {})
            manifest.write_json(scratch / "signature.json", stage.task.signature())
            preprocess.write(stage.task.preprocess(), scratch)
        for each in stage.params.export.stages[1:]:
            shutil.copytree(Path("exports") / ROOT, Path("exports") / each)
        runtimes = {each: {"runtime": "onnxruntime"} for each in stage.params.export.stages}
        manifest.write_json(Path("metrics/latency.json"), {"stages": runtimes})
        return stage

    with chdir(tmp_path):
        yield lay_out


BOTH = {
    "fp32 in ONNX Runtime", "fp32 in ONNX Runtime, rows shared", "fp32 in OpenVINO",
    "dynamic int8 in ONNX Runtime", "static int8 in ONNX Runtime",
    "static int8, percentile in ONNX Runtime",
    "NNCF int8 in OpenVINO", "Slimline: distill", "Slimline: quantize", "Slimline: quantize, rows shared",
}  # fmt: skip
OWN = {
    "words": {"layer-dropped student, dynamic int8"},
    "colours": {"layer-dropped student, static int8", "torch-pruning, 20% of MACs gone, static int8"},
}
BF16 = {"bf16 in OpenVINO", "NNCF int8 in OpenVINO, rest bf16"}
OLIVE = "Olive int8 in ONNX Runtime"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_tool_runs_on_the_workload(name: str, project: Project) -> None:
    from peers import Workload

    found = Workload(name, project(name)).measure()
    has_bf16 = "avx512_bf16" in benchmark.machine()["instructions"]
    assert set(found["variants"]) - {OLIVE} == BOTH | OWN[name] | (BF16 if has_bf16 else set())
    assert set(found["failed"]) <= {OLIVE}
    for row in found["variants"].values():
        assert set(row["latency_ms"]) == {"b1/t1", "b8/t1", "b1/t2", "b8/t2"}
        assert {"accuracy", "macro_f1", "agreement", "bytes", "drops"} <= set(row)
    size = {variant: row["bytes"] for variant, row in found["variants"].items()}
    assert size["static int8 in ONNX Runtime"] < 0.7 * size["fp32 in ONNX Runtime"]
    if name == "colours":
        assert size["torch-pruning, 20% of MACs gone, static int8"] < size["static int8 in ONNX Runtime"]
    assert found["operators"]["fp32 in ONNX Runtime"]["b8/t2"].keys() >= {"others"}
    assert [goal["bound"] for goal in found["goals"]] == [1.0, 2.0, 1.5, 1.5]
    assert found["nearest"]  # all are about as fast on a net this small
    for variant, drops in found["nearest"].items():
        difference = found["variants"][variant]["accuracy"] - found["variants"][found["ours"]]["accuracy"]
        assert drops["accuracy"]["drop"] == pytest.approx(difference)
        assert drops["macro_f1"]["ci"][0] <= drops["macro_f1"]["ci"][1]
    assert sorted(path.name for path in Path().iterdir() if path.suffix in {".data", ".onnx"}) == []


def test_a_tool_that_fails_costs_no_other_its_numbers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import peers
    import post_training

    def broken(*_: Any) -> None:
        raise RuntimeError("no kernel\nin /some/where/model.xml for this | that")

    monkeypatch.setattr(post_training, "nncf", broken)
    monkeypatch.setattr(peers, "THREADS", (1,))
    found = peers.Workload("words", project("words")).measure()
    assert found["failed"]["NNCF int8 in OpenVINO"] == "RuntimeError: no kernel in model.xml for this | that"
    assert not any("NNCF" in variant for variant in found["variants"])
    assert "static int8 in ONNX Runtime" in found["variants"]
    assert found["goals"]


def test_what_is_left_out_is_listed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import peers

    monkeypatch.setattr(peers, "THREADS", (1,))
    found = peers.Workload("words", project("words"), ["NNCF", "Olive", "static", "student"]).measure()
    assert "NNCF int8 in OpenVINO" in found["left_out"]
    assert not found["failed"]
    assert set(found["variants"]) & BOTH == BOTH - {each for each in BOTH if "NNCF" in each or "static" in each}


def test_what_was_made_is_not_made_again(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    import peers
    import post_training

    stage = project("words")
    first, second = (peers.made(stage, Path("exports/teacher"), post_training.dynamic) for _ in range(2))
    assert first == second
    assert capsys.readouterr().out.count("dynamic") == 1


def test_a_tool_trains_for_as_long_as_the_whole_chain(project: Project) -> None:
    from channel_pruning import whole_recovery

    recovery = whole_recovery(project("colours"))
    assert recovery.epochs == 2  # of distill and quantize; prune isn't exported
    assert recovery.lr == pytest.approx(0.001)
