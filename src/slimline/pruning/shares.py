"""Shares by sensitivity: every layer is cut so far that each, alone, would cost the model the same.

Each unit (a layer, a group of channels) is pruned alone at a few ratios, and the loss on validation rows is compared
with the whole model's (Li et al. 2017, arXiv:1608.08710, section 3.2). Between the ratios the rise is taken as linear.
One tolerance τ for all units is then found at which the shares r_u(τ) add up:  Σ size_u · r_u(τ) = ratio · Σ size_u.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

RATIOS = (0.25, 0.5, 0.75, 0.9)
ROUNDS = 60
SLOPE = 1e-9  # where pruning costs nothing, more of it costs next to nothing


def shares(
    sizes: Mapping[str, int], damage: Callable[[str, float], float], ratio: float, max_ratio: float
) -> dict[str, float]:
    """Return the share that goes of each unit; ``damage(unit, r)`` is what pruning r of it alone costs.

    No share is above ``max_ratio``; the sizes' weighted mean is ``ratio`` as long as ratio < max_ratio.
    """
    grid = [0.0, *(each for each in RATIOS if each < max_ratio), max_ratio]
    curves = {}
    for unit in sizes:
        rise = np.maximum.accumulate([0.0, *(damage(unit, each) for each in grid[1:])])
        curves[unit] = rise + SLOPE * np.array(grid)

    def at(tolerance: float) -> dict[str, float]:
        return {unit: float(np.interp(tolerance, curve, grid)) for unit, curve in curves.items()}

    low, high = 0.0, max(float(curve[-1]) for curve in curves.values())
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        gone = sum(sizes[unit] * share for unit, share in at(middle).items())
        low, high = (middle, high) if gone < ratio * sum(sizes.values()) else (low, middle)
    return at(high)
