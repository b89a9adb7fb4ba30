"""A teacher that was taken as it is must know its task: at chance, most often its labels stand in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.errors import DataError

ROWS = 30  # fewer can't tell chance from a weak model


def check(answers: NDArray[Any], targets: NDArray[Any], labels: Sequence[str], where: str) -> None:
    """Raise DataError when ``answers`` (class numbers, a row each) are right no more often than one constant answer.

    ``where`` is the file and key to name. The message says in which order of ``labels`` they would fit best
    (Kuhn 1955: the assignment of outputs to labels with the most hits).
    """
    if len(targets) < ROWS or len(labels) < 2:
        return
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (answers.astype(np.int64), targets.astype(np.int64)), 1)
    right, constant = np.trace(counts) / len(targets), counts.sum(0).max() / len(targets)
    if right > constant:
        return
    from scipy.optimize import linear_sum_assignment

    outputs, meant = linear_sum_assignment(-counts)
    best = counts[outputs, meant].sum() / len(targets)
    order = [labels[at] for at in meant]
    fits = f"in the order {order} {best:.1%} would be" if best > constant else "and no other order of labels helps"
    raise DataError(
        f"{where}: {right:.1%} of {len(targets)} validation answers are right, {constant:.1%} would be by always "
        f"answering {labels[int(counts.sum(0).argmax())]!r}; {fits}: is params.yaml: task.args.labels in the order of "
        "the model's outputs?"
    )
