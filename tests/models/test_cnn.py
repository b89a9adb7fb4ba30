from __future__ import annotations

import pytest
import torch

from slimline.models.cnn import Cnn


@pytest.mark.parametrize("size", [8, 28], ids=str)
def test_any_image_size_gives_one_row_of_logits_an_image(size: int) -> None:
    model = Cnn(width=4, classes=3, channels=2).eval()
    assert model(torch.rand(5, 2, size, size)).shape == (5, 3)
