"""Objectives of several kinds, and the folder release/monitoring/ made from them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimline import monitoring
from slimline.monitoring.objectives import objectives

ROW = {
    "accuracy": 0.9,
    "agreement": 0.95,
    "threads": 1,
    "latency_ms": {"1": {"p50": 0.1, "p95": 0.2, "p99": 0.3}, "32": {"p50": 0.9, "p95": 1.1, "p99": 1.2}},
}
MEASURED = {"stages": {"teacher": ROW, "factorize": ROW}}
SECTIONS: dict[str, dict[str, Any]] = {
    "as they come": {},
    "two parts": {"latency_ms": {"total": 50, "predict": 7.5}, "latency_share": 0.95, "error_share": 0.03},
    "labels expected": {"min_coverage": 0.2, "idle_minutes": 1.5, "undo": {"policy": "off"}},
}


@pytest.fixture(scope="session")
def make() -> Callable[[Path, dict[str, Any]], dict[str, Any]]:
    """Write a monitoring folder for a section ``monitor`` and return its objectives."""

    def write(folder: Path, section: dict[str, Any]) -> dict[str, Any]:
        document = {"budget": {"max_drop": {"accuracy": 0.015}}, "monitor": section}
        held = objectives(document, MEASURED, "factorize")
        monitoring.write(folder, held, "fashion-mnist")
        return held

    return write


@pytest.fixture(params=SECTIONS, scope="session")
def folder(request: pytest.FixtureRequest, make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """release/monitoring/ of each kind of objectives."""
    made: Path = tmp_path_factory.mktemp("monitoring")
    make(made, SECTIONS[request.param])
    return made


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run promtool or amtool in a folder."""
    package = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}[command[0]]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} isn't installed: apt-get install {package}")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
