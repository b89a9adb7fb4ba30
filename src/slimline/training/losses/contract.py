"""The contract of a loss: a frozen dataclass whose fields are its params.yaml keys, called on one batch -> a scalar.

A loss on outputs is called with (task, student's output, targets, teacher's output); float32, N first. The class
attribute ``needs`` (of "labels" and "teacher") says what it reads: without a teacher, a loss that needs one is refused;
on blended rows, which have no label, a loss that needs labels is left out; what is not named arrives as None. A loss
without the attribute gets whatever there is, None for the rest.

A loss on features is a ``FeatureLoss``. Either may have ``check(task, where)``, which raises ParamsError, ``where``
(file and key) first, for a task that the loss makes no sense for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

Pairs = Sequence[tuple[Tensor, Tensor]]


class FeatureLoss:
    """A loss on what layers give; the teacher runs on each batch, without gradients.

    ``layers`` {student's layer: teacher's layer} has names as in ``named_modules``; subclasses declare the field. When
    it is empty, the one pair is the two models' outputs, and the teacher's cached answers are used.
    """

    needs: ClassVar[tuple[str, ...]] = ("teacher",)
    layers: Mapping[str, str]

    def parts(self, model: nn.Module, layer: str, inputs: dict[str, Tensor]) -> list[str]:
        """Return the names of the layers that ``layer`` stands for in ``model``, which takes ``inputs``: itself here.

        Those of the student's and of the teacher's are paired in order. Raises ValueError where there are none.
        """
        del model, inputs
        return [layer]

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """Return the module that the student's features of a pair go through first; both features are examples.

        It is trained along and is no part of the artifact. Raises ValueError where the shapes can't match.
        """
        del student, teacher
        return nn.Identity()

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return the scalar loss of (student's, teacher's) features: float32, N first, in the order of ``layers``."""
        raise NotImplementedError


class TokenLoss(FeatureLoss):
    """A loss on features of tokens, some of which may be padding."""

    def __call__(self, pairs: Pairs, real: Tensor | None = None) -> Tensor:
        """Return the scalar loss; ``real`` [N × length] says which tokens are no padding, None: all are."""
        raise NotImplementedError


def needs(loss: Any) -> tuple[str, ...] | None:
    """Return what ``loss`` says it reads, or None when it says nothing."""
    found: tuple[str, ...] | None = getattr(loss, "needs", None)
    return found
