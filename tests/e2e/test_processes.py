"""A stage that two processes train: one artifact, one curve, and weights that the next stage takes."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from slimline import artifact
from tests.e2e.conftest import lay_out

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def test_torchrun_trains_the_teacher_and_its_student_and_refuses_to_compress(tmp_path: Path) -> None:
    project = lay_out(tmp_path / "project", "--limit", "200")
    project.edit("params.yaml", "epochs: 6", "epochs: 2")
    project.run("dvc", "repro", "stages/dvc.yaml")
    for stage in ("teacher", "distill"):
        project.run(*TWO, f"stages/{stage}.py")
        artifact.load(project.root / "artifacts" / stage)
        with (project.root / f"curves/{stage}/plots/metrics/loss.tsv").open() as file:
            steps = [row["step"] for row in csv.DictReader(file, delimiter="\t")]
        assert steps == [str(at) for at in range(len(steps))]
        assert len(steps) >= 2
    done = project.run(*TWO, "stages/prune.py", ok=False)
    assert done.returncode
    assert "error: params.yaml: prune: compresses in one process; teacher and distill take several" in done.stderr
