from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimline.models.cnn import Cnn
from slimline.task import Split, call
from slimline.tasks.digits import Digits
from slimline.training import teacher_cache
from slimline.training.teacher_cache import TeacherCache, is_mixed, view_batch, view_of


@pytest.fixture
def rows(splits: dict[str, Split]) -> Split:
    return splits["train"].head(60)


def counted(model: nn.Module) -> list[int]:
    """Return a list that gets the rows of each call of ``model``."""
    calls: list[int] = []

    def hook(_module: nn.Module, args: Any, _out: Any) -> None:
        calls.append(len(args[0]))

    model.register_forward_hook(hook)
    return calls


def test_a_view_is_computed_once_and_reused(
    cnn: Cnn, task: Digits, rows: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache, "ROWS", 25)
    calls = counted(cnn)
    first = np.array(TeacherCache(cnn, task, rows, "key", 0, tmp_path).view(0))
    assert calls == [25, 25, 10]
    again = TeacherCache(cnn, task, rows, "key", 0, tmp_path)
    np.testing.assert_array_equal(again.view(0), first)
    np.testing.assert_array_equal(again.view(0), first)
    assert len(calls) == 3


def test_batches_of_large_rows_are_small(
    cnn: Cnn, task: Digits, rows: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(TeacherCache(cnn, task, rows, "whole", 0, tmp_path).view(0))
    (row,) = (array[0].nbytes for array in rows.inputs.values())
    monkeypatch.setattr(teacher_cache, "BYTES", 7.5 * row)
    calls = counted(cnn)
    parts = np.array(TeacherCache(cnn, task, rows, "parts", 0, tmp_path).view(0))
    assert max(calls) == 7
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_views_keys_and_seeds_stay_apart(cnn: Cnn, task: Digits, rows: Split, tmp_path: Path) -> None:
    views = [
        np.array(TeacherCache(cnn, task, rows, key, seed, tmp_path).view(number))
        for key, seed, number in (("a", 0, 0), ("a", 0, 1), ("b", 1, 0))
    ]
    assert not (views[0] == views[1]).all()
    assert not (views[0] == views[2]).all()


def test_the_answers_are_the_teachers_to_what_the_student_sees(
    cnn: Cnn, task: Digits, rows: Split, tmp_path: Path
) -> None:
    """Whatever rows a batch of the student holds, they are those that the teacher answered."""
    cached = TeacherCache(cnn, task, rows, "key", 7, tmp_path).view(2)
    chosen = np.array([41, 3, 17])
    batch, y = view_batch(task, rows, chosen, view_of(task, len(rows), 7, 2))
    with torch.inference_mode():
        expected = call(cnn.eval(), batch).numpy()
    np.testing.assert_allclose(cached[chosen], expected, rtol=1e-4, atol=1e-4)
    assert y is not None
    assert y.tolist() == rows.targets[chosen].tolist()


def test_a_broken_computation_leaves_no_file(task: Digits, rows: Split, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        TeacherCache(nn.Linear(3, 3), task, rows, "key", 0, tmp_path).view(0)
    assert not list(tmp_path.rglob("*.npy"))


def test_draws_are_a_function_of_seed_and_view(task: Digits) -> None:
    assert torch.equal(view_of(task, 5, 1, 2).draws, view_of(task, 5, 1, 2).draws)
    assert not torch.equal(view_of(task, 5, 1, 2).draws, view_of(task, 5, 1, 3).draws)
    assert not torch.equal(view_of(task, 5, 1, 2).draws, view_of(task, 5, 2, 2).draws)


def test_mixed_views_blend_each_row_with_its_partner_and_have_no_targets(task: Digits) -> None:
    rows = task.splits()["train"].head(20)
    view = view_of(task, len(rows), 3, 1, mixed=True)
    assert view.partner is not None
    assert view.weight is not None
    chosen = np.array([4, 9])
    blended, y = view_batch(task, rows, chosen, view)
    assert y is None
    plain = view_of(task, len(rows), 3, 1)
    own, _ = view_batch(task, rows, chosen, plain)
    other, _ = view_batch(task, rows, view.partner[chosen], plain)
    weight = view.weight[chosen][:, None, None, None]
    torch.testing.assert_close(blended["image"], weight * own["image"] + (1 - weight) * other["image"])


def test_the_share_of_mixed_views_is_what_was_asked_for() -> None:
    assert sum(is_mixed(number, 0.5) for number in range(16)) == 8
    assert not any(is_mixed(number, 0.0) for number in range(16))
    assert all(is_mixed(number, 1.0) for number in range(16))
