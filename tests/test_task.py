from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from slimline import task as tasks
from slimline.errors import DataError, PluginError
from slimline.models.cnn import Cnn
from slimline.task import Split, cut
from slimline.tasks.digits import Digits


def split(rows: int) -> Split:
    return Split({"x": np.arange(rows * 2.0).reshape(rows, 2)}, np.arange(rows), np.arange(rows) // 2)


def test_a_split_gives_rows_of_inputs_and_targets() -> None:
    inputs, y = split(6)[np.array([4, 1])]
    assert inputs["x"].tolist() == [[8, 9], [2, 3]]
    assert y.tolist() == [4, 1]


def test_inputs_and_targets_must_have_as_many_rows() -> None:
    with pytest.raises(DataError, match="input 'x' has 3 rows, the targets have 2"):
        Split({"x": np.zeros(3)}, np.zeros(2))


def test_a_row_is_as_long_as_the_batch_that_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills rows up may stand between tokens too, and a row may have none."""
    monkeypatch.setattr(tasks, "CHUNK", 2)
    ids = np.array([[5, 0, 7, 0], [0, 0, 0, 0], [1, 2, 3, 4], [0, 9, 0, 0]])
    padded = Split({"ids": ids}, np.zeros(4), padding=("ids", 0))
    assert padded.lengths.tolist() == [3, 1, 4, 2]
    assert [padded[slice(at, at + 1)][0]["ids"].shape[1] for at in range(4)] == [3, 1, 4, 2]
    assert padded[np.array([0, 3])][0]["ids"].shape == (2, 3)
    assert padded[slice(0, 0)][0]["ids"].shape == (0, 1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 30))
def test_rows_are_answered_in_their_order_beside_others_as_long(lengths: list[int], most: int, positions: int) -> None:
    ids = np.zeros((len(lengths), 12), np.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = row + 1
    seen: list[tuple[int, ...]] = []

    def run(inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        seen.append(inputs["ids"].shape)
        return inputs["ids"].max(1, keepdims=True)

    padded = Split({"ids": ids}, np.zeros(len(lengths)), padding=("ids", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "BATCH", most)
        patch.setattr(tasks, "POSITIONS", positions)
        found = padded.outputs(run)
        np.testing.assert_array_equal(padded.outputs(run, at_once=3), found)
        del seen[len(seen) // 2 :]
    np.testing.assert_array_equal(found[:, 0], [row + 1 if length else 0 for row, length in enumerate(lengths)])
    assert all(rows <= most and (rows == 1 or rows * width <= positions) for rows, width in seen)
    assert [width for _, width in seen] == sorted(width for _, width in seen)


@given(rows=st.integers(1, 200), count=st.integers(1, 220))
def test_head_spreads_distinct_rows_from_first_to_last(rows: int, count: int) -> None:
    whole = split(rows)
    head = whole.head(count)
    assert len(head) == min(rows, count)
    assert len(np.unique(head.targets)) == len(head)
    assert head.targets[0] == 0
    assert head.groups is not None
    assert (head.groups == head.targets // 2).all()
    if count > 1:
        assert head.targets[-1] == rows - 1


def test_head_without_a_count_is_the_split_itself() -> None:
    whole = split(5)
    assert whole.head(None) is whole


def test_a_splits_digest_covers_names_and_values() -> None:
    def digest(name: str, value: float, target: int, kind: type = np.float32) -> str:
        return Split({name: np.full((2, 2), value, kind)}, np.full(2, target)).digest

    base = digest("x", 1, 1)
    assert digest("x", 1, 1) == base
    assert len({base, digest("y", 1, 1), digest("x", 2, 1), digest("x", 1, 2), digest("x", 1, 1, np.float64)}) == 5


def test_a_splits_digest_is_of_values_not_of_memory_order() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert Split({"x": array}, np.zeros(2)).digest == Split({"x": np.asfortranarray(array)}, np.zeros(2)).digest


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 4), min_size=40, max_size=200),
    st.integers(0, 2**32 - 1),
    st.fractions(0, 0.4),
    st.fractions(0, 0.4),
)
def test_cut_parts_are_disjoint_whole_and_balanced(labels: list[int], seed: int, a: float, b: float) -> None:
    targets = np.array(labels)
    sizes = {"train": 0, "validation": int(a * len(labels)), "test": int(b * len(labels))}
    parts = cut(targets, sizes, seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(targets)))
    for name in ("validation", "test"):
        for label in np.unique(targets):
            share = np.sum(targets == label) / len(targets)
            assert abs(np.sum(targets[parts[name]] == label) - share * sizes[name]) <= 0.5 + 1e-9


def test_cut_is_a_function_of_its_seed() -> None:
    targets = np.arange(100) % 5
    sizes = {"train": 0, "test": 20}
    first, again, other = cut(targets, sizes, 1), cut(targets, sizes, 1), cut(targets, sizes, 2)
    assert (first["test"] == again["test"]).all()
    assert (first["test"] != other["test"]).any()


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_classification_metrics_of_perfect_outputs_are_one(task: Digits, name: str) -> None:
    assert task.metrics(np.eye(10), np.arange(10))[name] == 1.0


def test_probabilities_are_a_softmax_that_does_not_overflow(task: Digits) -> None:
    out = np.array([[1000.0, 1000.0], [0.0, np.log(3.0)]])
    np.testing.assert_allclose(task.probabilities(out), [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)


def test_answers_right_and_alike(task: Digits) -> None:
    answers = task.answer(np.array([[0, 2, 1], [3, 2, 1]]))
    assert answers.tolist() == [1, 0]
    assert task.correct(answers, np.array([1, 1])).tolist() == [True, False]
    assert task.agree(answers, np.array([1, 2])).tolist() == [True, False]


@pytest.mark.parametrize("higher", [True, False])
def test_better_follows_the_direction(higher: bool) -> None:
    task = Digits()
    task.higher_is_better = higher
    assert task.better(1.0, 0.5) is higher
    assert not task.better(1.0, 1.0)


def test_build_model_finds_a_plug_in(task: Digits) -> None:
    assert isinstance(task.build_model("cnn", width=4), Cnn)
    with pytest.raises(PluginError, match=r"params.yaml: model.name: no plug-in 'cn'.*Did you mean 'cnn'"):
        task.build_model("cn")


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b


def test_call_passes_several_inputs_by_name() -> None:
    inputs = tasks.tensors({"b": np.ones(3, np.float32), "a": np.full(3, 3, np.float32)})
    assert tasks.call(Sum(), inputs).tolist() == [2, 2, 2]


class SumOfDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.scale * (features["a"] - features["b"])


@pytest.fixture
def process_group() -> Iterator[None]:
    """One process that is a group of its own, as each of several is."""
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


@pytest.mark.parametrize("kind", ["plain", "ddp"])
def test_call_passes_one_dict_where_forward_takes_it(process_group: None, kind: str) -> None:
    model = SumOfDict()
    inputs = tasks.tensors({"b": np.ones(3, np.float32), "a": np.full(3, 3, np.float32)})
    assert tasks.call(DistributedDataParallel(model) if kind == "ddp" else model, inputs).tolist() == [2, 2, 2]


def test_call_passes_a_single_input_by_position() -> None:
    assert tasks.call(nn.Flatten(), {"any": torch.ones(1, 2, 2)}).shape == (1, 4)
