"""Is a teacher better than guessing? What a budget allows is counted from its answers."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from slimline.errors import ChanceError
from slimline.task import Classification, Task
from slimline.teachers import label_order, number_scale


def of(
    task: Task, out: NDArray[Any], targets: NDArray[Any], where: str, split: str = "validation"
) -> ChanceError | None:
    """Return what to say of outputs that are no better than guessing, or None. ``where`` is the file and key to name.

    Guessing is the commonest label, shuffled rows where a row has any of several labels, the mean of numbers. Of tasks
    of other kinds and of few rows nothing is known.
    """
    try:
        if isinstance(task, Classification):
            label_order.check(task.answer(out), targets, task.labels, where, split)
        elif task.independent and task.labels:
            label_order.check_many(out, targets, task.labels, where, split)
        elif task.numeric:
            number_scale.check(task.answer(out), targets, where, split)
    except ChanceError as error:
        return error
    return None
