"""A killed stage, a full disk, wrong input: nothing is lost or half written, and one line says what to do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import STAGES, Project, environment


@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_inside_a_stage_ends_in_the_same_weights(finished: Project, tmp_path: Path, stage: str) -> None:
    project = finished.copy(tmp_path / "p")
    shutil.rmtree(project.root / ".slimline", ignore_errors=True)
    shutil.rmtree(project.root / "artifacts" / stage)
    command = ["python", "-P", f"stages/{stage}.py"]
    process = subprocess.Popen(
        command, cwd=project.root, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if f"{stage}: " in line:  # the first epoch is done, or the first choice made
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (project.root / "artifacts" / stage / "manifest.json").exists()
    resumed = project.run(*command).stdout
    assert project.digest(f"artifacts/{stage}") == finished.digest(f"artifacts/{stage}")
    assert f"{stage}: sha256:" in resumed
    assert not list((project.root / "artifacts").glob(".*.tmp"))


@pytest.mark.parametrize(
    ("command", "library"),
    [
        (("export.py", "quantize"), "onnxruntime"),
        (("latency.py",), "onnxruntime"),
        (("benchmark.py",), "onnxruntime"),
        (("release.py",), "onnxruntime"),
        (("report.py",), "ft2font"),
    ],
    ids=lambda c: c[0],
)
def test_kill_9_inside_a_measuring_stage_leaves_what_can_be_run_again(
    finished: Project, tmp_path: Path, command: tuple[str, ...], library: str
) -> None:
    project = finished.copy(tmp_path / "p")
    line = ["python", "-P", f"stages/{command[0]}", *command[1:]]
    for delay in (0.0, 0.2):  # after the library that does the stage's work was loaded
        process = subprocess.Popen(
            line, cwd=project.root, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
        )
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and library not in maps.read_text():
            time.sleep(0.01)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        for folder in ("exports/quantize", "release"):
            project.run("slimline", "show", folder)
    project.run(*line)
    project.run("slimline", "show", "release")


@pytest.mark.parametrize(
    ("folder", "command", "made"),
    [
        ("artifacts", ("teacher.py",), "artifacts/teacher"),
        (".slimline", ("teacher.py",), "artifacts/teacher"),
        ("artifacts", ("prune.py",), "artifacts/prune"),
        ("exports", ("export.py", "quantize"), "exports/quantize"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value,
)
def test_full_disk_is_one_line_and_keeps_what_was_there(
    finished: Project, tmp_path: Path, small_disk: Path, folder: str, command: tuple[str, ...], made: str
) -> None:
    project = finished.copy(tmp_path / "p")
    line = ["python", "-P", f"stages/{command[0]}", *command[1:]]
    if folder != ".slimline":
        shutil.copytree(project.root / folder, small_disk, dirs_exist_ok=True)
    shutil.rmtree(project.root / folder, ignore_errors=True)
    (project.root / folder).symlink_to(small_disk)
    before = finished.digest(made)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(b"0" * (free - 8192))
    failed = project.run(*line, ok=False)
    assert failed.returncode == 2, failed.stderr
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "disk is full" in errors[0]
    assert "Traceback" not in failed.stderr
    assert project.digest(made) == before
    project.run("slimline", "show", made)
    (small_disk / "ballast").unlink()
    project.run(*line)
    assert project.digest(made) == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 0", "sede: 0", "params.yaml: sede: unknown key. Did you mean 'seed'?"),
        ("ratio: 0.3", "ratio: 1.3", "params.yaml: prune.methods.0.ratio: "),
        ("ratio: 0.3", "ration: 0.3", "params.yaml: prune.methods.0.ration: unknown key"),
        ("name: structured", "name: strutured", "params.yaml: prune.methods.0: no plug-in 'strutured'"),
        ("from: distill", "from: destill", "params.yaml: prune.from: no stage 'destill'. Did you mean 'distill'?"),
        ("from: teacher", "from: quantize", "the stages make a circle"),
        ("name: cnn, args: {width: 16}", "name: cnn, args: {wide: 16}", "params.yaml: distill.model.args:"),
        ("name: digits, args: {}", "name: digits, args: {sed: 1}", "params.yaml: task.args:"),
        ("batch_sizes: [1, 32]", "batch_sizes: [0]", "params.yaml: target.batch_sizes.0:"),
        ("stages: [teacher, distill,", "stages: [distill,", "params.yaml: export.stages: add 'teacher'"),
        ("name: digits, args: {}", "name: 'os:system', args: {}", "params.yaml: task"),
    ],
)  # fmt: skip
def test_wrong_params_are_one_line_naming_file_and_key(
    finished: Project, tmp_path: Path, old: str, new: str, said: str
) -> None:
    project = Project(tmp_path / "p")
    finished.run("git", "clone", "-q", str(finished.root), str(project.root))
    project.edit("params.yaml", old, new)
    refused = project.run("slimline", "check", ok=False)
    assert refused.returncode == 2, refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert said in refused.stderr
