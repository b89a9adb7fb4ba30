"""The processes that train together: ``torchrun`` and ``accelerate launch`` say which of them this one is."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from slimline.errors import TrainingError

FLAG = "ACCELERATE_USE_CPU"


def on_cpu() -> bool:
    """Return whether training runs on the CPU: there is nothing else, or ACCELERATE_USE_CPU says so."""
    try:
        asked = bool(parse_flag_from_env(FLAG))
    except ValueError as error:
        raise TrainingError(f"environment variable {FLAG}: {error}; set it to true or false") from error
    return asked or not torch.accelerator.is_available()


def processes() -> PartialState:
    """Return this process's place among them. The first one writes all files."""
    return PartialState(cpu=on_cpu())
