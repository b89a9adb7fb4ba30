"""The live demo where no process runs: what it starts, plants and asks for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from slimline.errors import SlimlineError
from slimline.manifest import digest
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
    loop = Loop(tmp_path, [tmp_path / "release"], sample=0.5)
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


CALLS = """
import sys, time
for line in sys.stdin:
    for _ in range(400):
        start = time.perf_counter()
        while time.perf_counter() < start + 0.002:
            pass
        print(time.perf_counter() - start)
    print("over", flush=True)
"""


def test_a_throttled_process_loses_the_time_in_which_it_stands_still() -> None:
    from throttled import Throttled

    def slow() -> int:
        process.stdin.write("go\n")
        process.stdin.flush()
        return sum(float(line) > 0.02 for line in iter(process.stdout.readline, "over\n"))

    process: Any = subprocess.Popen(
        [sys.executable, "-c", CALLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        before = slow()
        with Throttled(process.pid, runs=0.002, stopped=0.03):
            throttled = slow()
        after = slow()
        process.stdin.close()
    assert throttled > 20 + max(before, after)


ADVISED = "undo advised against going back"


@pytest.mark.parametrize("letter", ["e", "h"])
@pytest.mark.parametrize(
    ("at", "blame", "history", "missed"),
    [
        (40.0, "serving", [], set()),
        (130.0, "serving", [], {"alarm within 120 s"}),
        (40.0, "quantize", [], {"blamed on serving", "a notification named the verdict"}),
        (40.0, "serving", ["rollback"], {"nothing was rolled back", ADVISED}),
    ],
    ids=["as it should", "late", "a stage", "rolled back"],
)
def test_a_slower_process_is_no_fault_of_the_release(
    letter: str, at: float, blame: str, history: list[str], missed: set[str]
) -> None:
    import outcome
    from scenarios import SCENARIOS

    alarm = {"signal": "latency", "at": at, "blame": blame, "undo": "done" if history else "advised"}
    found = {
        "alarms": [alarm], "failed": 0, "pages": [], "tickets": [], "verdicts_told": [blame],
        "history": ["activate", "activate", *history],
    }  # fmt: skip
    goals = outcome._goals(found, SCENARIOS[letter])
    assert {goal for goal, kept in goals.items() if not kept} == missed


@pytest.mark.parametrize("answer", ["advised", "failed", "ignored"])
def test_undo_has_to_advise_where_it_could_have_gone_back(answer: str) -> None:
    import outcome
    from scenarios import SCENARIOS

    alarm = {"signal": "accuracy", "at": 6.0, "blame": "data", "undo": answer}
    found = {"alarms": [alarm], "failed": 0, "pages": [], "tickets": [], "history": ["activate", "activate"]}
    assert outcome._goals(found, SCENARIOS["c"])[ADVISED] is (answer == "advised")


def test_what_was_deployed_before_is_there_to_go_back_to(
    two_releases: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build, with other weights: an incumbent that answers alike would clear every stage."""
    import planted
    import run
    from scenarios import SCENARIOS
    from servers import Loop
    from traffic import Rows

    loops: list[Loop] = []

    def stopped(loop: Loop) -> None:
        loops.append(loop)
        raise SlimlineError("not yet")

    built = {planted.EARLIER: two_releases[0], "sound": two_releases[1]}
    monkeypatch.setattr(planted, "build", lambda name, _: built[name])
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(Loop, "_endpoint", stopped)
    with pytest.raises(SlimlineError, match="not yet"):
        run.play(SCENARIOS["c"], Rows({}, np.zeros(0), []), seed=0, rate=1.0, folder=tmp_path / "c-0")
    assert loops[0].deployment.revision() == digest(two_releases[1])
    assert loops[0].deployment.earlier() == [digest(two_releases[0])]


def test_what_was_deployed_before_is_quantized_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import planted

    ran: list[tuple[str, ...]] = []

    def script(*command: str) -> None:
        ran.append(command)
        if command[0].startswith("stages/") and command[0] == "stages/release.py":
            Path("release").mkdir()

    stages = ["teacher", "prune", "quantize", "factorize"]
    document = DOCUMENT | {
        "prune": {"from": "teacher", "methods": [{"name": "structured", "ratio": 0.3}]},
        "quantize": {"from": "prune", "methods": [{"name": "linear"}], "recovery": {"epochs": 5}},
        "factorize": {"from": "quantize", "methods": [{"name": "svd"}], "recovery": {"epochs": 5}},
        "export": {"stages": stages},
    }
    for folder in (
        "metrics",
        "data",
        "stages",
        "scratch",
        *(f"{a}/{b}" for a in ("artifacts", "exports") for b in stages),
    ):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planted, "_script", script)
    planted._run(document, planted.BUILDS[planted.EARLIER], Path("made"), tmp_path / "scratch")
    assert [Path(command[0]).stem for command in ran] == [
        "quantize", "factorize", "export", "export", "latency", "halves", "release"
    ]  # fmt: skip
