"""A teacher's outputs on the training set, view by view, computed once and memory-mapped.

A view is one random augmentation of the whole set, a function of (seed, view, row). With ``views: n`` epochs cycle
through n of them, so a teacher answers each row n times in all, however many epochs and stages learn from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline import leftovers, metrics, progress
from slimline.errors import TrainingError
from slimline.own_data import row_files
from slimline.task import Split, Task, call, tensors

FOLDER = Path(".slimline/teacher")
ROWS, BYTES = 500, 3e6  # of a batch, at most: what a network makes of images has to stay in the processor's cache


@dataclass(frozen=True)
class View:
    """The chance in one view: uniform ``draws`` for the task's augmentation, and for a mixed view each row's partner
    and the ``weight`` of the row itself."""

    draws: Tensor
    partner: NDArray[np.int64] | None = None
    weight: Tensor | None = None


def view_of(task: Task, rows: int, seed: int, number: int, *, mixed: bool = False) -> View:
    """Return view ``number`` of a set of so many rows."""
    generator = torch.Generator().manual_seed((seed << 20) + number)
    chance = torch.rand(rows, task.augment_draws, generator=generator)
    if not mixed:
        return View(chance)
    partner = torch.randperm(rows, generator=generator).numpy()
    return View(chance, partner, torch.rand(rows, generator=generator))


def is_mixed(number: int, share: float) -> bool:
    """Return whether view ``number`` is mixed when ``share`` of all views are, spread evenly."""
    return int((number + 1) * share) > int(number * share)


def view_batch(
    task: Task, split: Split, rows: NDArray[np.int64], view: View
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return the inputs of ``rows`` under one view and their targets; a mixed view has no targets."""
    batch, y = _augmented(task, split, rows, view)
    if view.partner is None or view.weight is None:
        return batch, y
    others, _ = _augmented(task, split, view.partner[rows], view)
    weight = view.weight[torch.from_numpy(rows)]
    blended = {}
    for name, value in batch.items():
        if not value.is_floating_point():
            raise TrainingError(f"mixup blends numbers, input {name!r} is {value.dtype}: set mixup: 0")
        share = weight.view(-1, *[1] * (value.ndim - 1)).to(value.dtype)
        blended[name] = share * value + (1 - share) * others[name]
    return blended, None


def _augmented(task: Task, split: Split, rows: NDArray[np.int64], view: View) -> tuple[dict[str, Tensor], Tensor]:
    inputs, y = split[rows]
    batch = tensors(inputs)
    if task.augment_draws:
        batch = task.augment(batch, view.draws[torch.from_numpy(rows)])
    return batch, torch.from_numpy(np.ascontiguousarray(y))


class TeacherCache:
    """Outputs of one teacher on one split. ``key`` names teacher, data and seed; files of other keys stay apart."""

    def __init__(
        self, teacher: nn.Module, task: Task, split: Split, key: str, seed: int, folder: Path = FOLDER
    ) -> None:
        leftovers.sweep(folder)
        self.teacher = teacher.eval()
        self.task = task
        self.split = split
        self.seed = seed
        self.folder = folder / key

    def of(self, split: Split, device: torch.device | None = None) -> NDArray[np.float32]:
        """Return the teacher's outputs on the rows of another split as they are, N first; they aren't kept."""
        with self._at(device):
            return metrics.outputs(self.teacher, split)

    @contextmanager
    def _at(self, device: torch.device | None) -> Iterator[None]:
        """Have the teacher on ``device``, or where it is."""
        home = next(self.teacher.parameters()).device
        self.teacher.to(device or home)
        try:
            yield
        finally:
            self.teacher.to(home)

    def view(self, number: int, *, mixed: bool = False, device: torch.device | None = None) -> NDArray[np.float32]:
        """Return the teacher's outputs on view ``number``, N first; from disk when they were computed before.

        They are computed on ``device``, or where the teacher is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        os.utime(self.folder)
        path = self.folder / f"view-{number}{'-mixed' if mixed else ''}.npy"
        if not path.is_file():
            with self._at(device):
                self._compute(path, view_of(self.task, len(self.split), self.seed, number, mixed=mixed))
        cached: NDArray[np.float32] = np.load(path, mmap_mode="r")
        return cached

    @torch.inference_mode()
    def _compute(self, path: Path, view: View) -> None:
        row, _ = view_batch(self.task, self.split, np.arange(1), view)
        batch_size = max(1, min(ROWS, int(BYTES / sum(value.nbytes for value in row.values()))))
        device = next(self.teacher.parameters()).device
        starts = range(0, len(self.split), batch_size)

        def answers(start: int) -> NDArray[np.float32]:
            rows = np.arange(start, min(start + batch_size, len(self.split)))
            batch, _ = view_batch(self.task, self.split, rows, view)
            batch = {name: value.to(device) for name, value in batch.items()}
            return call(self.teacher, batch).float().cpu().numpy()

        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        bar = progress.each(starts, f"teacher's answers, {path.stem}", len(starts), "part")
        try:
            row_files.save(scratch, map(answers, bar), len(self.split))
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
