from __future__ import annotations

import torch

from slimline.layers import Add


def test_add_adds() -> None:
    assert Add()(torch.tensor([1.0]), torch.tensor([2.0])).item() == 3
