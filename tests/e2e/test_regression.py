"""The closed loop with real processes: a miscalibrated release is seen, blamed on its stage and undone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Project

PROGRAMS = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager", "chromium": "chromium"}
RUN = Path(__file__).parents[2] / "benchmarks/regression/run.py"


def test_a_miscalibrated_stage_is_seen_blamed_and_undone(finished: Project, tmp_path: Path) -> None:
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.skip(f"{program} isn't installed: apt-get install {package}")
    project = finished.copy(tmp_path / "p")
    played = project.run(sys.executable, str(RUN), "--scenario", "a", ok=False)
    folder = project.root / ".slimline/regression/a-0"
    assert (folder / "result.json").is_file(), played.stdout + played.stderr
    result = json.loads((folder / "result.json").read_text())
    missed = [goal for goal, kept in result["goals"].items() if not kept]
    assert not missed, played.stdout
    assert played.returncode == 0
    assert result["history"] == ["activate", "activate", "rollback"]
    assert {"SlimlineAccuracyRegressed", "SlimlineAgreementRegressed"} & set(result["pages"])
    journal = [json.loads(line) for line in (folder / "undo/journal.jsonl").read_text().splitlines()]
    done = [each["by"] for each in journal if each["outcome"] == "done"]
    assert len(done) == 1, (
        "whoever comes first, the monitor or Alertmanager's webhook, does it; the other finds it done"
    )
    assert set(done) <= {"monitor", "alertmanager"}
    shown = seen_by_chromium(folder / "page.html", tmp_path)
    assert "picture loaded" in shown
    assert "quantize" in shown


def seen_by_chromium(page: Path, scratch: Path) -> str:
    """Return the page as a browser has it after its scripts ran; one is added that says whether the picture loaded."""
    probe = (
        "<script>onload = () => { document.title = document.images[0].naturalWidth > 0 ? 'picture loaded' : 'none' }"
        "</script>"
    )
    (scratch / "page.html").write_text(page.read_text().replace("</html>", f"{probe}</html>"))
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
        f"--user-data-dir={scratch / 'chromium'}", (scratch / "page.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
