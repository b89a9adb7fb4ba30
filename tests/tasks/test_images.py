from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimline.tasks.images import flip, shift


@pytest.fixture(scope="module")
def batch() -> Tensor:
    return torch.randn(12, 2, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def draws() -> Tensor:
    return torch.rand(12, 2, generator=torch.Generator().manual_seed(1))


def test_shift_is_a_function_of_the_row_alone(batch: Tensor, draws: Tensor) -> None:
    whole = shift(batch, draws, 2)
    order = torch.randperm(12)
    assert torch.equal(shift(batch[order], draws[order], 2), whole[order])
    for row in range(12):
        assert torch.equal(shift(batch[row : row + 1], draws[row : row + 1], 2), whole[row : row + 1])


def test_flip_is_a_function_of_the_row_alone(batch: Tensor, draws: Tensor) -> None:
    whole = flip(batch, draws[:, 0])
    for row in range(12):
        assert torch.equal(flip(batch[row : row + 1], draws[row : row + 1, 0]), whole[row : row + 1])


@given(st.integers(-2, 2), st.integers(-2, 2))
def test_shift_moves_by_whole_pixels_and_fills_with_the_darkest(down: int, right: int) -> None:
    image = torch.arange(1.0, 31).reshape(1, 1, 5, 6)
    draw = torch.tensor([[(2 - down + 0.5) / 5, (2 - right + 0.5) / 5]])
    expected = torch.full((1, 1, 5, 6), 1.0)
    for row in range(5):
        for column in range(6):
            if 0 <= row + down < 5 and 0 <= column + right < 6:
                expected[0, 0, row + down, column + right] = image[0, 0, row, column]
    assert torch.equal(shift(image, draw, 2), expected)


@given(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=2, max_size=2))
def test_shift_takes_any_draw(draw: list[float]) -> None:
    image = torch.rand(1, 1, 4, 4)
    for most in (1, 2):
        moved = shift(image, torch.tensor([draw]), most)
        assert moved.shape == image.shape
        assert moved.min() >= image.min() - 1e-6
        assert moved.max() <= image.max() + 1e-6


def test_flip_mirrors_below_one_half(batch: Tensor) -> None:
    found = flip(batch[:2], torch.tensor([0.49, 0.5]))
    assert torch.equal(found[0], batch[0].flip(-1))
    assert torch.equal(found[1], batch[1])
