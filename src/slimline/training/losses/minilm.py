"""Relations in self-attention (MiniLMv2, Wang et al. 2021, arXiv:2012.15828): which tokens an attention puts together.

    A_r = softmax(X_r X_rᵀ / √d_r)        X one of Q, K, V, cut into R relation heads of width d_r
    L = Σ_{Q, K, V} mean_rows 1/(R·|x|) Σ_r Σ_{t ≤ |x|} KL(A_r,t of the teacher ‖ A_r,t of the student)

R cuts both models' projections alike, so they may differ in width and in the number of heads. Padding is no token: |x|
counts the others, and no row of A looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from slimline.params import Layer
from slimline.pruning import encoder_parts
from slimline.training.losses.contract import Pairs, TokenLoss

UNSEEN = -1e9  # added to the logit of padding: its probability is 0, its logarithm finite


@dataclass(frozen=True)
class MiniLm(TokenLoss):
    """``layers``: {student's layer: teacher's}, each with one self-attention in it; ``heads`` is R.

    The paper follows one layer alone: the teacher's last, or one a few layers before where it is large.
    """

    layers: Annotated[dict[Layer, Layer], Field(min_length=1)]
    heads: Annotated[int, Field(ge=1)] = 12

    def parts(self, model: nn.Module, layer: str, inputs: dict[str, Tensor]) -> list[str]:
        """Return the names of the layers that give Q, K and V."""
        training = model.training
        found = encoder_parts.attentions(model, inputs)
        model.train(training)
        own = [each for each in found if each.module == layer or each.module.startswith(f"{layer}.")]
        if len(own) != 1:
            raise ValueError(
                f"holds {len(own) or 'no'} self-attention{'s' * (len(own) > 1)} with whole projections; "
                f"there are: {', '.join(each.module for each in found) or 'none'}"
            )
        return list(own[0].projections)

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module:
        for each in (student, teacher):
            if each.ndim != 3 or each.shape[-1] % self.heads:
                raise ValueError(
                    f"{list(student.shape[1:])} and {list(teacher.shape[1:])} a row; heads: {self.heads} must divide "
                    "both widths"
                )
        return nn.Identity()

    def __call__(self, pairs: Pairs, real: Tensor | None = None) -> Tensor:
        first, *others = [self._divergence(s, t, real) for s, t in pairs]
        return sum(others, first)

    def _divergence(self, student: Tensor, teacher: Tensor, real: Tensor | None) -> Tensor:
        ours, theirs = (self._relations(each, real) for each in (student, teacher))
        apart = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1).mean(1)  # N × length
        if real is None:
            return apart.mean()
        return ((apart * real).sum(1) / real.sum(1).clamp(min=1)).mean()

    def _relations(self, projected: Tensor, real: Tensor | None) -> Tensor:
        """Return log A [N × R × length × length] of one projection [N × length × width]."""
        rows, length, width = projected.shape
        size = width // self.heads
        heads = projected.view(rows, length, self.heads, size).transpose(1, 2)
        logits = heads @ heads.transpose(2, 3) / size**0.5
        if real is not None:
            logits = logits.masked_fill(~real[:, None, None, :], UNSEEN)
        return F.log_softmax(logits, dim=-1)
