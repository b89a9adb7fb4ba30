"""Movement: does a short fine-tuning draw a channel's weights away from zero, or towards it?

    S_c = −Σ_t Σ_w w_t · ∂L/∂w_t        over steps t and all weights w that belong to channel c

A descent step moves w by −∂L/∂w, so each term is above 0 where |w| grows (Sanh, Wolf & Rush 2020, arXiv:2005.07683,
where single weights are scored and masked as training goes on; whole heads and neurons as in Lagunas et al. 2021,
arXiv:2109.04838). Here a copy is fine-tuned whole, by AdamW at one learning rate on the task's own loss; only its
scores are kept. A pretrained model's magnitudes say what mattered before, its movement what matters for the task.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Context
from slimline.pruning import masks
from slimline.task import Split, call
from slimline.training.teacher_cache import view_batch, view_of

BATCH = 32


@dataclass(frozen=True)
class Tuning:
    """How long the copy is fine-tuned, in batches, and at which learning rate."""

    steps: int = 200
    lr: float = 1e-4


def rows_of(context: Context) -> Split:
    """Return the rows that the copy learns from."""
    return context.train if context.train is not None else context.task.splits()["train"]


def movements(model: nn.Module, layers: set[str], context: Context, tuning: Tuning) -> dict[str, Tensor]:
    """Return −Σ_t w_t ⊙ ∂L/∂w_t of the weights of ``layers``, by parameter name. The model stays as it is.

    Raises MethodError where there are no training rows, and when the loss stops being finite.
    """
    rows = rows_of(context)
    if not len(rows):
        raise MethodError(f"{context.where}.importance: movement fine-tunes, and the train split has no rows")
    moving = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(moving.parameters(), lr=tuning.lr, weight_decay=0.0)
    weights = {name: p for name, p in moving.named_parameters() if name.removesuffix(".weight") in layers}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    masked = masks.masked(moving)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)  # dropout
        for step, (epoch, chosen) in zip(range(tuning.steps), _batches(rows, context.seed), strict=False):
            inputs, y = view_batch(context.task, rows, chosen, view_of(context.task, len(rows), context.seed, epoch))
            assert y is not None  # noqa: S101  (no view is mixed)
            moving.train()
            loss = context.task.loss(call(moving, inputs), y)
            if not bool(loss.isfinite()):
                raise MethodError(
                    f"{context.where}.lr: the loss became {float(loss.detach())} at step {step + 1}; lower lr"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for name, weight in weights.items():
                if weight.grad is not None:
                    total[name] -= weight.detach() * weight.grad
            optimizer.step()
            masks.enforce(masked)
    return total


def _batches(rows: Split, seed: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield (epoch, row numbers) without end, each epoch in an order of its own."""
    epoch = 0
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(len(rows))
        for start in range(0, len(rows), BATCH):
            yield epoch, order[start : start + BATCH]
        epoch += 1
