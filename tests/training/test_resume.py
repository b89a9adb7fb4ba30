from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from slimline.leftovers import KEEP_DAYS
from slimline.training.resume import State


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    state = State({"a": 1}, tmp_path)
    assert state.load() is None
    state.save({"epoch": 2, "model": {"w": torch.ones(2)}})
    found = State({"a": 1}, tmp_path).load()
    assert found is not None
    assert found["epoch"] == 2
    assert torch.equal(found["model"]["w"], torch.ones(2))
    assert [path.name for path in sorted(state.folder.iterdir())] == ["inputs.json", "state.pt"]


def test_other_inputs_have_another_state(tmp_path: Path) -> None:
    State({"a": 1}, tmp_path).save({"epoch": 2})
    assert State({"a": 2}, tmp_path).load() is None


def test_the_latest_unfinished_training_says_what_differs(tmp_path: Path) -> None:
    def state(stage: str = "prune", threads: int = 2, seed: int = 0) -> State:
        return State({"stage": stage, "threads": threads, "seed": seed}, tmp_path)

    assert state().differing("stage") == {}
    state(threads=1, seed=7).save({"epoch": 1})
    os.utime(state(threads=1, seed=7).path, (1e9, 1e9))
    state(threads=4).save({"epoch": 1})
    state("teacher").save({"epoch": 1})
    assert state().differing("stage") == {"threads": (4, 2)}
    assert state("distill").differing("stage") == {}
    (state(threads=4).folder / "inputs.json").write_text("{")
    assert state().differing("stage") == {"threads": (1, 2), "seed": (7, 0)}
    state().save({"epoch": 1})
    assert state().differing("stage") == {}


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_state_counts_as_none(tmp_path: Path, damage: str) -> None:
    state = State({}, tmp_path)
    state.save({"model": torch.ones(1000)})
    raw = state.path.read_bytes()
    state.path.write_bytes({"truncated": raw[: len(raw) // 2], "empty": b"", "text": b"no state"}[damage])
    assert state.load() is None


def test_clearing_forgets(tmp_path: Path) -> None:
    state = State({}, tmp_path)
    state.save({"epoch": 1})
    state.clear()
    assert state.load() is None
    assert list(tmp_path.iterdir()) == []


def test_states_that_nobody_came_back_to_are_swept(tmp_path: Path) -> None:
    old, young = State({"a": 1}, tmp_path), State({"a": 2}, tmp_path)
    old.save({"epoch": 1})
    young.save({"epoch": 1})
    past = time.time() - (KEEP_DAYS + 1) * 86400
    os.utime(old.folder, (past, past))
    State({"a": 3}, tmp_path)
    assert old.load() is None
    assert young.load() is not None
