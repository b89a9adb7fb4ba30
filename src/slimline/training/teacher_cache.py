"""A teacher's outputs on the training set, view by view, computed once and memory-mapped.

A view is one random augmentation of the whole set, a function of (seed, view, row). With ``views: n`` epochs cycle
through n of them, so a teacher answers each row n times in all, however many epochs and stages learn from it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from slimline.task import Split, Task, call, tensors

FOLDER = Path(".slimline/teacher")


def draws(task: Task, rows: int, seed: int, view: int) -> Tensor:
    """Return the uniform draws of one view, rows × ``task.augment_draws``."""
    generator = torch.Generator().manual_seed((seed << 20) + view)
    return torch.rand(rows, task.augment_draws, generator=generator)


def view_batch(
    task: Task, split: Split, rows: NDArray[np.int64], view_draws: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the augmented inputs and targets of ``rows`` under one view."""
    inputs, y = split[rows]
    batch = tensors(inputs)
    if task.augment_draws:
        batch = task.augment(batch, view_draws[torch.from_numpy(rows)])
    return batch, torch.from_numpy(np.ascontiguousarray(y))


class TeacherCache:
    """Outputs of one teacher on one split. ``key`` names teacher, data and seed; files of other keys stay apart."""

    def __init__(
        self, teacher: nn.Module, task: Task, split: Split, key: str, seed: int, folder: Path = FOLDER
    ) -> None:
        self.teacher = teacher.eval()
        self.task = task
        self.split = split
        self.seed = seed
        self.folder = folder / key

    def view(self, number: int, batch_size: int = 500) -> NDArray[np.float32]:
        """Return the teacher's outputs on view ``number``, N first; from disk when they were computed before."""
        path = self.folder / f"view-{number}.npy"
        if not path.is_file():
            self._compute(path, number, batch_size)
        cached: NDArray[np.float32] = np.load(path, mmap_mode="r")
        return cached

    @torch.inference_mode()
    def _compute(self, path: Path, number: int, batch_size: int) -> None:
        chance = draws(self.task, len(self.split), self.seed, number)
        outputs = []
        starts = range(0, len(self.split), batch_size)
        for start in tqdm(starts, desc=f"teacher, view {number}", leave=False, disable=None):
            rows = np.arange(start, min(start + batch_size, len(self.split)))
            batch, _ = view_batch(self.task, self.split, rows, chance)
            outputs.append(call(self.teacher, batch).float().numpy())
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with scratch.open("wb") as file:
                np.save(file, np.concatenate(outputs))
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
