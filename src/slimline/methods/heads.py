"""Attention heads go, with their rows of the three projections and their columns of the layer that reads them.

    Attn(x) = Σ_h W_o,h·(ξ_h ⊙ softmax((W_q,h x)ᵀ(W_k,h x)/√d)·W_v,h x),        I_h = Σ_d |∂L/∂ξ_h,d| at ξ = 1

Michel et al. 2019, arXiv:1905.10650, with a gate for each of the d dimensions of a head, whose gradient is Σ w·g over
the column of W_o that reads it. ``importance: taylor`` adds the same of the rows of W_q, W_k and W_v; the other
importances are those of channels (``slimline.pruning.importances``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from slimline.pruning import encoder_parts
from slimline.pruning.channels import Group
from slimline.pruning.encoder_pruning import EncoderPruning


@dataclass(frozen=True)
class Heads(EncoderPruning):
    """Prune ``ratio`` of the attention heads; the keys are those of ``EncoderPruning``."""

    name: ClassVar[str] = "heads"
    parts: ClassVar[str] = "heads"

    def groups(self, model: nn.Module, inputs: dict[str, Tensor]) -> list[Group]:
        return [each.group for each in encoder_parts.attentions(model, inputs)]
