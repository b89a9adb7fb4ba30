from __future__ import annotations

import numpy as np
import torch

from slimline.task import SPLITS, Split, tensors
from slimline.tasks.digits import Digits


def rows(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.inputs["image"]}


def test_splits_are_all_there_and_of_the_signatures_shape(task: Digits, splits: dict[str, Split]) -> None:
    assert tuple(splits) == SPLITS
    assert sum(len(split) for split in splits.values()) == 1797
    shape = task.signature()["inputs"][0]["shape"][1:]
    for split in splits.values():
        assert list(split.inputs["image"].shape[1:]) == shape
        assert split.inputs["image"].dtype == np.float32
        assert set(np.unique(split.targets)) == set(range(10))


def test_splits_are_disjoint(splits: dict[str, Split]) -> None:
    seen: set[bytes] = set()
    for split in splits.values():
        assert not seen & rows(split)
        seen |= rows(split)


def test_splits_are_a_function_of_the_seed(splits: dict[str, Split]) -> None:
    assert Digits().splits()["test"].digest == splits["test"].digest
    assert Digits(seed=1).splits()["test"].digest != splits["test"].digest


def test_images_are_normalized(splits: dict[str, Split]) -> None:
    images = splits["train"].inputs["image"]
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02


def test_augmenting_keeps_the_shape(task: Digits, splits: dict[str, Split]) -> None:
    inputs = tensors(splits["train"][slice(0, 5)][0])
    assert task.augment(inputs, torch.rand(5, task.augment_draws))["image"].shape == (5, 1, 8, 8)
