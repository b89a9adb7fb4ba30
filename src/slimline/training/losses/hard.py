"""The task's own loss against the labels, for a single-label task with smoothed ones (Szegedy et al. 2016,
arXiv:1512.00567):

    y' = (1 − ε) · onehot(y) + ε / K        L = CE(y', softmax(z_s))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from slimline.errors import ParamsError
from slimline.task import Task


@dataclass(frozen=True)
class Hard:
    """The loss against the labels; ``label_smoothing`` is ε."""

    needs: ClassVar[tuple[str, ...]] = ("labels",)
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def check(self, task: Task, where: str) -> None:
        if self.label_smoothing and not task.smooths:
            raise ParamsError(
                f"{where}.label_smoothing: the loss of {type(task).__name__} can't be smoothed: it has no smoothed_loss"
            )

    def __call__(self, task: Task, student: Tensor, y: Tensor, teacher: Tensor | None) -> Tensor:
        del teacher
        if self.label_smoothing:
            return task.smoothed_loss(student, y, self.label_smoothing)
        return task.loss(student, y)
