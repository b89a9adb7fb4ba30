from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimline.decisions import Decisions
from slimline.errors import ArtifactError


class Clock:
    """A measurement that comes out differently each time."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> dict[str, int]:
        self.runs += 1
        return {"rank": self.runs}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decisions" / "factorize.json"


def test_the_same_inputs_replay_the_choice(path: Path) -> None:
    clock = Clock()
    assert Decisions(path, {"a": 1}).choose("svd", clock) == {"rank": 1}
    again = Decisions(path, {"a": 1})
    assert again.choose("svd", clock) == {"rank": 1}
    assert again.replayed == ["svd"]
    assert clock.runs == 1


@pytest.mark.parametrize("remeasure", [False, True], ids=["other inputs", "remeasure"])
def test_other_inputs_or_remeasure_choose_anew(path: Path, remeasure: bool) -> None:
    clock = Clock()
    Decisions(path, {"a": 1}).choose("svd", clock)
    anew = Decisions(path, {"a": 1 if remeasure else 2}, remeasure=remeasure)
    assert anew.choose("svd", clock) == {"rank": 2}
    assert anew.replayed == []
    assert Decisions(path, {"a": 1 if remeasure else 2}).choices == {"svd": {"rank": 2}}


def test_within_a_run_a_choice_is_made_once() -> None:
    clock = Clock()
    decisions = Decisions(None, {})
    assert decisions.choose("svd", clock) == decisions.choose("svd", clock)
    assert clock.runs == 1


def test_choices_of_several_methods_stand_side_by_side(path: Path) -> None:
    decisions = Decisions(path, {})
    decisions.choose("svd", lambda: 1)
    decisions.choose("tucker2", lambda: 2)
    assert json.loads(path.read_text())["choices"] == {"svd": 1, "tucker2": 2}


def test_a_stage_that_chose_nothing_leaves_a_file_too(path: Path) -> None:
    Decisions(path, {}).write()
    assert json.loads(path.read_text())["choices"] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "choices: missing; delete the file to measure anew"),
        ('{"format": 1}', "choices: missing"),
        ('{"format": 9, "choices": {}}', "format 9 is newer"),
    ],
    ids=["json", "list", "no choices", "newer"],
)
def test_a_damaged_file_is_named(path: Path, text: str, message: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ArtifactError) as caught:
        Decisions(path, {})
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_two_entries_of_one_method_have_choices_of_their_own(path: Path) -> None:
    clock = Clock()

    def run(decisions: Decisions) -> list[dict[str, int]]:
        return [decisions.entry(name).choose(name, clock) for name in ("svd", "tucker2", "svd")]

    first = run(Decisions(path, {}))
    assert first == [{"rank": 1}, {"rank": 2}, {"rank": 3}]
    again = Decisions(path, {})
    assert run(again) == first
    assert again.replayed == ["svd", "tucker2", "svd #2"]
    assert json.loads(path.read_text())["choices"].keys() == {"svd", "tucker2", "svd #2"}
