"""Neurons of feed-forward layers go: a row of the first matrix, its bias, and a column of the second.

    FFN(x) = W_2·f(W_1 x + b_1) + b_2,        I_j = |Σ w·g| over row j of W_1, and the same of column j of W_2

In a gated layer, W_2·(f(W_1 x) ⊙ V x), a neuron is a row of both W_1 and V, which lie in one matrix or in two.

Prasanna et al. 2020, arXiv:2005.00561, with the first-order score of Molchanov et al. 2019, arXiv:1906.10771; other
importances as in ``slimline.pruning.importances``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from slimline.pruning import encoder_parts
from slimline.pruning.channels import Group
from slimline.pruning.encoder_pruning import EncoderPruning


@dataclass(frozen=True)
class Neurons(EncoderPruning):
    """Prune ``ratio`` of the feed-forward neurons, to multiples of 16, as vector units run them.

    The keys are those of ``EncoderPruning``.
    """

    multiple: Annotated[int, Field(ge=1)] = 16

    name: ClassVar[str] = "neurons"
    parts: ClassVar[str] = "neurons"

    def groups(self, model: nn.Module, inputs: dict[str, Tensor]) -> list[Group]:
        return encoder_parts.feed_forwards(model, inputs)
