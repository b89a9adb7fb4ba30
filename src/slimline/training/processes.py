"""The processes that train together: ``torchrun`` and ``accelerate launch`` say which of them this one is."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState


def on_cpu() -> bool:
    """Return whether training runs on the CPU: there is nothing else, or ACCELERATE_USE_CPU says so."""
    return not torch.accelerator.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true"}


def processes() -> PartialState:
    """Return this process's place among them. The first one writes all files."""
    return PartialState(cpu=on_cpu())
