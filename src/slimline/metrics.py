"""Quality of answers. A metric is a class: ``Metric()(answers, targets) -> float`` with ``higher_is_better``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.task import Split, Task, call, tensors


class Accuracy:
    """Share of rows whose answer equals the target."""

    higher_is_better = True
    of_labels = True

    def __call__(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        return float(np.mean(answers == targets))


class MacroF1:
    """Mean over classes of F1 = 2·TP / (2·TP + FP + FN); a class that neither occurs nor is answered is left out."""

    higher_is_better = True
    of_labels = True

    def __call__(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        scores = []
        for label in np.union1d(answers, targets):
            hit = np.sum((answers == label) & (targets == label))
            scores.append(2 * hit / (np.sum(answers == label) + np.sum(targets == label)))
        return float(np.mean(scores))


@torch.inference_mode()
def outputs_of(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Tensor:
    """Return the raw outputs of ``model``, in evaluation mode from now on, for all rows, float32, N first."""
    model.eval()
    return torch.cat([call(model, inputs).float() for inputs in batches])


def outputs(model: nn.Module, split: Split) -> NDArray[np.float32]:
    """Return the raw outputs of ``model`` in evaluation mode for every row of ``split``, N first."""
    was_training = model.training
    device = next((each.device for each in model.parameters()), torch.device("cpu"))

    def run(inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        return outputs_of(model, [{name: value.to(device) for name, value in tensors(inputs).items()}]).cpu().numpy()

    out = split.outputs(run)
    model.train(was_training)
    return out


def evaluate(model: nn.Module, task: Task, split: Split) -> dict[str, float]:
    """Return the task's metrics of ``model`` on ``split``."""
    return task.metrics(outputs(model, split), split.targets)
