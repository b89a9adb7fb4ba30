"""How many channels each group keeps: what to give up, given scores and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from slimline.errors import MethodError
from slimline.pruning.channels import Cost, Group


@dataclass(frozen=True)
class Limits:
    """A group keeps a multiple of ``multiple`` channels and loses no more than ``max_ratio`` of them."""

    multiple: int
    max_ratio: float

    def least(self, channels: int) -> int:
        """Return how many of a group's channels must stay."""
        least = max(1, round(channels * (1 - self.max_ratio)))
        return min(channels, max(round(least / self.multiple), 1) * self.multiple)

    def rounded(self, wanted: int, channels: int) -> int:
        """Return the allowed width closest to ``wanted``."""
        width = round(wanted / self.multiple) * self.multiple
        return min(max(width, self.least(channels)), channels)

    def narrower(self, width: int, channels: int) -> list[int]:
        """Return every allowed width below ``width``, the next one first."""
        top = (math.ceil(width / self.multiple) - 1) * self.multiple
        return list(range(top, self.least(channels) - 1, -self.multiple))

    def check(self, groups: list[int], where: str) -> None:
        """Raise MethodError where no group, of so many channels each, has an allowed width below its own."""
        if not any(self.narrower(channels, channels) for channels in groups):
            raise MethodError(
                f"{where}.multiple: nothing can be pruned: no narrower width is a multiple of {self.multiple} and "
                f"within max_ratio, {self.max_ratio}; the widest has {max(groups)}"
            )


def above_threshold(scores: list[Tensor], ratio: float) -> list[int]:
    """Return how many scores of each group lie above one threshold that ``ratio`` of all scores lie under."""
    everything = torch.cat(scores).sort().values
    threshold = everything[min(len(everything) - 1, int(ratio * len(everything)))]
    return [int((score >= threshold).sum()) for score in scores]


def cheapest(
    found: list[Group], scores: list[Tensor], cost: Cost, ratio: float, limits: Limits, *, leap: bool = False
) -> list[int]:
    """Return the widths at which ``ratio`` of the cost is gone, given up where the score lost per cost saved is least.

    It goes step by step, at the widths reached by then. A cost that doesn't fall with every step takes ``leap``: then
    each group may go to any narrower width at once. It ends early when no step saves anything.
    """
    ascending = [score.sort().values for score in scores]
    widths = [group.channels for group in found]
    allowed = (1 - ratio) * cost.total(widths)
    while cost.total(widths) > allowed:
        steps = []
        for index, group in enumerate(found):
            for narrower in limits.narrower(widths[index], group.channels)[: None if leap else 1]:
                saved = cost.saved(widths, index, narrower)
                gone = group.channels - widths[index], group.channels - narrower
                lost = float(ascending[index][gone[0] : gone[1]].sum())
                if saved > 0:
                    steps.append((lost / saved, index, narrower))
        if not steps:
            break
        _, index, narrower = min(steps)
        widths[index] = narrower
    return widths
