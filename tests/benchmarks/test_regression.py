"""The live demo where no process runs: what it starts, plants and asks for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from slimline.tasks.digits import Digits

DOCUMENT = {
    "task": {"name": "digits"},
    "teacher": {"model": {"name": "cnn"}, "training": {"epochs": 1, "lr": 0.1}},
    "export": {"stages": ["teacher"]},
}


def test_the_monitor_reads_the_endpoints_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from servers import Loop

    started: dict[str, list[str]] = {}
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(Loop, "_start", lambda _, name, command, *rest: started.update({name: command}))
    loop = Loop(tmp_path, tmp_path / "release", sample=0.5)
    loop._monitor()
    loop.pager.close()
    command = started["monitor"]
    assert command[command.index("--endpoint") + 1] == loop.urls["endpoint"]


def test_no_row_that_is_sent_was_one_that_floors_were_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import halves
    import run

    from slimline import params
    from slimline.stage import Stage

    (tmp_path / "params.yaml").write_text(yaml.safe_dump(DOCUMENT))
    monkeypatch.chdir(tmp_path)
    sent = run.test_rows().inputs["image"]
    floors = halves.measured(Stage("benchmark", params.load(), None)).splits["test"].inputs["image"]
    whole = Digits().splits()["test"].inputs["image"]
    rows = [sorted(row.tobytes() for row in images) for images in (np.concatenate([sent, floors]), whole)]
    assert rows[0] == rows[1]
    assert abs(len(sent) - len(floors)) <= 1


def test_a_planted_release_is_measured_on_its_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import planted

    ran: list[str] = []

    def script(path: str, *_: str) -> None:
        ran.append(path)
        if path == "stages/release.py":
            Path("release").mkdir()

    for folder in ("exports/teacher", "metrics", "data", "stages", "scratch"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planted, "_script", script)
    planted._run(DOCUMENT, None, Path("made"), tmp_path / "scratch")
    assert ran == [str(planted.HALVES), "stages/release.py"]
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    ("letter", "pages", "goal", "kept"),
    [
        ("c", ["SlimlineAccuracyRegressed"], "people were told", True),
        ("c", [], "people were told", False),
        ("g", [], "no page", True),
        ("g", ["SlimlineAccuracyRegressed"], "no page", False),
    ],
)
def test_a_shift_pages_when_it_does_harm_and_only_then(letter: str, pages: list[str], goal: str, kept: bool) -> None:
    import outcome
    from scenarios import SCENARIOS

    found = {"alarms": [], "failed": 0, "pages": pages, "tickets": [], "history": ["activate"]}
    assert outcome._goals(found, SCENARIOS[letter])[goal] is kept
