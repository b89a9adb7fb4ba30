"""What the methods that mask weights share: which layers they take, and one layer masked alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from slimline.method import Alone, Batches, Context, Method
from slimline.pruning import masks


@dataclass(frozen=True)
class Masking(Method):
    """Zero weights for good, outside the layers that the globs ``skip`` match."""

    skip: list[str] = field(default_factory=list, kw_only=True)

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        del batches
        masks.maskable(model, self.skip, context.where)

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        del batches, context
        return model


def zeroed(model: nn.Module, name: str, mask: Callable[[], Tensor], strength: dict[str, Any]) -> Alone:
    """Return the change that zeroes the weights of one layer outside ``mask()`` (bool, True = lives)."""

    def make() -> nn.Module:
        changed = copy.deepcopy(model)
        masks.weight(changed.get_submodule(name)).masked_fill_(~mask(), 0)
        return changed

    return Alone(strength, make, (name,))
