"""The whole DVC chain, as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

import slimline
from slimline import engines
from slimline.predictor import Predictor

from .conftest import STAGES, Project

MEASURED = [f"export@{stage}" for stage in STAGES] + ["latency", "benchmark", "report", "release"]


def test_every_stage_left_its_artifact_export_and_row(finished: Project) -> None:
    rows = finished.json("metrics/benchmark.json")["stages"]
    assert isinstance(rows, dict)
    assert set(rows) == set(STAGES)
    for stage in STAGES:
        finished.run("slimline", "show", f"artifacts/{stage}")
        finished.run("slimline", "show", f"exports/{stage}")
    assert rows["quantize"]["bytes"] < rows["prune"]["bytes"] < rows["teacher"]["bytes"]
    assert rows["teacher"]["accuracy"] > 0.9
    page = (finished.root / "report/index.html").read_text()
    assert all(stage in page for stage in STAGES)


def test_nothing_to_do_trains_nothing(finished: Project) -> None:
    assert finished.repro() == []


def test_one_parameter_reruns_its_stage_and_what_follows(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "p")
    project.edit("params.yaml", "{name: linear, bits: 8}", "{name: symmetric, bits: 8}")
    assert project.repro() == ["quantize", "factorize", "export@quantize", "export@factorize", *MEASURED[5:]]
    project.edit("params.yaml", "max_bytes: 20000", "max_bytes: 30000")
    assert project.repro() == ["report", "release"]
    project.edit("params.yaml", "trust: []", "trust: ['digits:Other']")
    assert project.repro() == ["release"]  # its card holds every key


def test_code_of_a_method_reruns_the_stages_that_use_it_alone(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "p")
    package = tmp_path / "code" / "slimline"
    shutil.copytree(Path(slimline.__file__).parent, package)
    env = {"PYTHONPATH": str(package.parent)}
    assert project.repro("--dry", **env) == []
    method = package / "methods" / "svd.py"
    method.write_text(method.read_text() + "\n# a comment changes nothing\n")
    project.run("python", "-P", "stages/fingerprint.py", **env)
    assert "factorize" not in changed(project, env)
    method.write_text(method.read_text() + "\nUNUSED = 1\n")
    project.run("python", "-P", "stages/fingerprint.py", **env)
    assert {"factorize", "export@factorize"} <= changed(project, env)
    assert not {"teacher", "distill", "prune", "quantize", "export@teacher"} & changed(project, env)


def changed(project: Project, env: dict[str, str]) -> set[str]:
    """Return the stages whose own dependencies changed, by ``dvc status``."""
    status = json.loads(project.run("dvc", "status", "--json", **env).stdout)
    found = set()
    for stage, facts in status.items():
        paths = [path for fact in facts if isinstance(fact, dict) for path in fact.get("changed deps", {})]
        if any("fingerprints" in path for path in paths):
            found.add(stage)
    return found


def test_int8_only_runs_only_its_stages(tmp_path: Path) -> None:
    from .conftest import lay_out

    project = lay_out(tmp_path / "p", "--recipe", "int8", "--limit", "200")
    ran = project.repro()
    assert ran == [
        "teacher",
        "quantize",
        "export@teacher",
        "export@quantize",
        "latency",
        "benchmark",
        "report",
        "release",
    ]
    card = project.json("release/card.json")
    assert card["chain"] == ["teacher", "quantize"]
    assert not (project.root / "curves/quantize/plots").exists(), "int8 trains nothing after the teacher"


def test_a_teacher_from_weights_is_taken_not_trained(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "p")
    shutil.copy(project.root / "artifacts/teacher/model.safetensors", project.root / "mine.safetensors")
    project.edit("params.yaml", "weights: null", "weights: mine.safetensors")
    project.edit("params.yaml", "  training: {epochs: 6, batch_size: 64, lr: 1.0e-2, weight_decay: 1.0e-2}\n", "")
    project.edit("params.yaml", "budget: {", "budget: {min_recall: {'3': 0.99999}, ")
    project.run("slimline", "check")
    ran = project.repro()
    assert ran == ["teacher", "report", "release"], "the same weights: nothing that reads them runs again"
    assert not (project.root / "curves/teacher/plots").exists()
    verdict = project.run("slimline", "gate", ok=False)
    assert verdict.returncode == 1
    assert "FAIL recall of 3" in verdict.stdout
    (project.root / "mine.safetensors").write_bytes(b"\0" * 100)
    broken = project.run("dvc", "repro", "teacher", ok=False)
    assert broken.returncode != 0
    assert "mine.safetensors" in broken.stderr


def test_push_clone_pull_predict(finished: Project, tmp_path: Path) -> None:
    source = finished.copy(tmp_path / "source")
    source.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    source.run("git", "commit", "-qam", "remote")
    source.run("dvc", "push", "-q")
    clone = Project(tmp_path / "clone")
    source.run("git", "clone", "-q", str(source.root), str(clone.root))
    clone.run("dvc", "pull", "-q")
    predictor = Predictor(clone.root / "release")
    golden = np.load(clone.root / "release/golden.npz")
    out = predictor.predict({"image": golden["input/image"]})["logits"]
    np.testing.assert_allclose(out, golden["output/factorize"], atol=1e-4)
    assert clone.repro() == []


def test_another_order_with_nothing_else_edited(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "p")
    done = project.run(
        "dvc", "exp", "run", "-S", "factorize.from=prune", "-S", "quantize.from=factorize", "report", "release"
    )
    assert "Running stage 'factorize'" in done.stdout
    assert "Running stage 'teacher'" not in done.stdout
    card = project.json("release/card.json")
    assert card["last"] == "quantize"
    assert card["chain"] == ["teacher", "distill", "prune", "factorize", "quantize"]
    shown = project.run("dvc", "exp", "show", "--md", "--only-changed").stdout
    assert "factorize" in shown
    assert "accuracy" in project.run("dvc", "metrics", "diff", "--md").stdout


def test_other_formats_stand_beside_the_first_and_in_benchmark_and_report(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "p")
    built = engines.is_installed()
    engine = ", {name: tensorrt, compute: [86, 120]}" if built else ""
    project.edit("params.yaml", "formats: [onnx]", f"formats: [onnx, onnx-fp16, onnx-trt{engine}]")
    project.run("slimline", "check")
    assert "onnx-trt" in project.run("python", "-P", "stages/export.py", "quantize").stdout
    folder = project.root / "exports/quantize"
    assert (folder / "model.onnx").read_bytes() == (finished.root / "exports/quantize/model.onnx").read_bytes()
    found = project.json("exports/quantize/facts.json")["formats"]
    assert isinstance(found, dict)
    assert found["onnx-trt"]["requantized"] > 0
    assert found["onnx-trt"]["validation"]["drop"] <= 0.01
    assert (
        project.run("slimline", "lint", "exports/quantize", "--for", "tensorrt").stdout.count("nothing to change") == 1
    )
    Predictor(folder).close()
    project.run("python", "-P", "stages/benchmark.py")
    project.run("python", "-P", "stages/report.py")
    targets = project.json("metrics/benchmark.json")["targets"]
    assert isinstance(targets, dict)
    assert targets["onnxruntime/onnx/t1"]["status"] == "run"
    assert "quantize: onnx-trt" in (project.root / "report/report.md").read_text()
    if built:
        assert (folder / "model.engine").is_file()
        assert targets["tensorrt-rtx/tensorrt/t1"]["status"] == "built"


def test_plots_render(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "p")
    project.run("dvc", "plots", "show", "-o", "plots")
    page = (project.root / "plots/index.html").read_text()
    for path in ("teacher/plots/metrics/loss.tsv", "prune/plots/metrics/validation/accuracy.tsv"):
        assert path in page


def test_same_seed_twice_gives_the_same_digests(finished: Project, tmp_path: Path) -> None:
    again = Project(tmp_path / "again")
    finished.run("git", "clone", "-q", str(finished.root), str(again.root))
    assert again.repro("--no-run-cache")[:5] == list(STAGES)
    for stage in STAGES:
        assert again.digest(f"artifacts/{stage}") == finished.digest(f"artifacts/{stage}"), stage


def test_gate_speaks_with_its_exit_code(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "p")
    assert project.run("slimline", "gate").stdout.count("ok") >= 2
    project.edit("params.yaml", "max_bytes: 20000", "max_bytes: 10")
    refused = project.run("slimline", "gate", ok=False)
    assert refused.returncode == 1
    assert "FAIL bytes" in refused.stdout
