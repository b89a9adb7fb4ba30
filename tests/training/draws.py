"""Tensors drawn by a seed."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

SEEDS = st.integers(0, 100)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
