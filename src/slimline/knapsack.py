"""One option for each item, so that what they take together stays within a budget and what they lose is least.

    min Σ_i loss_i(x_i)   subject to   Σ_i size_i(x_i) ≤ budget                 (multiple-choice knapsack)

which is how mixed precision is chosen (Dong et al. 2020, HAWQ-V2, arXiv:1911.03852; Yao et al. 2021, HAWQ-V3,
arXiv:2011.10680, as an integer linear program). Solved exactly by dynamic programming over what isn't dominated: of two
partial choices the one that takes no less and loses no less can't be part of a better whole (Nemhauser & Ullmann 1969,
Management Science 15). Where more than ``MOST`` partial choices are left, only the one that loses least stays of each
of ``MOST`` equal steps of size: the choice stays within the budget, and what it loses is no more than the best loses at
a budget tighter by one such step an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 20_000


@dataclass(frozen=True)
class Point:
    """A whole choice: the option of each item, and their sums."""

    options: tuple[int, ...]
    size: float
    loss: float


def frontier(sizes: Sequence[Sequence[float]], losses: Sequence[Sequence[float]]) -> list[Point]:
    """Return every choice that no other beats in both sums, the smallest first; ``losses`` fall along it.

    ``sizes[i][k]`` and ``losses[i][k]`` are those of option k of item i.
    """
    total_size, total_loss = np.zeros(1), np.zeros(1)
    back: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for size, loss in zip(sizes, losses, strict=True):
        options = len(size)
        new_size = (total_size[:, None] + np.asarray(size, float)[None]).ravel()
        new_loss = (total_loss[:, None] + np.asarray(loss, float)[None]).ravel()
        kept = _undominated(new_size, new_loss)
        back.append((kept // options, kept % options))
        total_size, total_loss = new_size[kept], new_loss[kept]
    return [_point(index, back, sizes, losses) for index in range(len(total_size))]


def _undominated(size: NDArray[np.float64], loss: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions of what nothing beats, by rising size."""
    order = np.lexsort((loss, size))
    best = np.minimum.accumulate(loss[order])
    kept = order[np.r_[True, best[1:] < best[:-1]]]
    if len(kept) > MOST:
        step = (size[kept[-1]] - size[kept[0]]) / MOST
        cell = np.ceil((size[kept] - size[kept[0]]) / step)
        kept = kept[np.r_[cell[1:] != cell[:-1], True]]  # the last of a cell loses least
    return kept


def _point(
    index: int,
    back: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    sizes: Sequence[Sequence[float]],
    losses: Sequence[Sequence[float]],
) -> Point:
    options = []
    for parent, option in reversed(back):
        options.append(int(option[index]))
        index = int(parent[index])
    options.reverse()
    size = sum(each[k] for each, k in zip(sizes, options, strict=True))
    loss = sum(each[k] for each, k in zip(losses, options, strict=True))
    return Point(tuple(options), float(size), float(loss))
