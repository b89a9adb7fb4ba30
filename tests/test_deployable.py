"""What is deployed starts where torch isn't installed: nothing it imports reaches torch, however indirectly."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = (
    "answers", "archive", "benchmark", "cli", "cli.deploying", "cli.releases", "decisions", "deployment", "errors",
    "file_index", "gate", "goldens", "intervals", "latency", "manifest", "params", "pipeline", "plugins", "predictor",
    "preprocess", "project.layout", "promotion", "provenance", "release", "runtimes.onnxruntime", "scoring", "tables",
    "times", "model_repository.repository", "runtimes.triton", "endpoint.app", "events",
    "monitor.running", "monitor.probe_command", "monitor.window",
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_it_needs_no_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import slimline.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
