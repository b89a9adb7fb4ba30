"""A teacher must know the labels of its task: at chance, one taken as it is most often has them in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import intervals
from slimline.errors import ChanceError

CONFIDENCE = 0.95
ROWS = 30  # fewer can't tell chance from a weak model
SHUFFLES = 199
SURE = 0.99


def check(
    answers: NDArray[Any], targets: NDArray[Any], labels: Sequence[str], where: str, split: str = "validation"
) -> None:
    """Raise ChanceError when ``answers`` (class numbers, a row each) aren't surely right more often than the commonest
    label would be, by the interval of the paired difference.

    Where labels are of unequal size, answers may be worth more than that: they pass too if no other order of labels
    fits them better and the mean recall over labels beats 99 of 100 shuffles. ``where`` is the file and key to name,
    ``split`` what rows they are. The message says in which order of ``labels`` the answers would fit best (Kuhn 1955:
    the assignment of outputs to labels with the most hits).
    """
    if len(targets) < ROWS or len(labels) < 2 or targets.ndim != 1:
        return
    answers, targets = answers.astype(np.int64), targets.astype(np.int64)
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (answers, targets), 1)
    if np.count_nonzero(counts.sum(0)) < 2:
        return
    commonest = int(counts.sum(0).argmax())
    right, constant = np.trace(counts) / len(targets), counts.sum(0).max() / len(targets)
    low, high = intervals.paired_drop(answers == targets, targets == commonest, CONFIDENCE)
    if low > 0:
        return
    from scipy.optimize import linear_sum_assignment

    outputs, meant = linear_sum_assignment(-counts)
    best = counts[outputs, meant].sum() / len(targets)
    if best <= right and _tells_labels_apart(answers, targets):
        return
    order = [labels[at] for at in meant]
    fits = f"in the order {order} {best:.1%} would be" if best > constant else "and no other order of labels helps"
    unsure = f" (95% interval of the difference {low:+.1%} to {high:+.1%})" if right > constant else ""
    raise ChanceError(
        where,
        f"{right:.1%} of {len(targets)} {split} answers are right, {constant:.1%} would be by always answering "
        f"{labels[commonest]!r}{unsure}",
        f"{fits}: is params.yaml: task.args.labels in the order of the model's outputs?",
        float(right - constant),
    )


def _tells_labels_apart(answers: NDArray[np.int64], targets: NDArray[np.int64]) -> bool:
    """Return whether the mean recall over the labels that occur beats 99 of 100 shuffles of the rows."""
    totals = np.bincount(targets)

    def mean_recall(truth: NDArray[np.int64]) -> float:
        hits = np.bincount(truth[answers == truth], minlength=len(totals))
        return float(np.mean(hits[totals > 0] / totals[totals > 0]))

    rng = np.random.default_rng(0)
    shuffled = [mean_recall(rng.permutation(targets)) for _ in range(SHUFFLES)]
    return mean_recall(targets) > float(np.quantile(shuffled, SURE))


def check_many(
    out: NDArray[Any], targets: NDArray[Any], labels: Sequence[str], where: str, split: str = "validation"
) -> None:
    """Raise ChanceError when outputs tell which labels a row has no better than chance, where it has any of several.

    ``out`` [N × labels] are scores of any scale, ``targets`` [N × labels] above 0 where a row has the label. The
    statistic is the mean over labels of the area under the ROC curve, ½ for whoever knows how frequent labels are and
    nothing of the rows. Chance is what it reaches on shuffled rows, which keep frequencies and what labels have to do
    with each other: the outputs must beat 99 of 100 shuffles. Orders are searched and judged in the same way, by the
    assignment of outputs to labels with the largest mean area.
    """
    truth = (np.asarray(targets) > 0).astype(np.float64)
    if len(truth) < ROWS or len(labels) < 2:
        return
    from scipy.stats import rankdata

    ranks = rankdata(np.nan_to_num(np.asarray(out, np.float64)), axis=0)
    known = np.flatnonzero(truth.any(0) & ~truth.all(0))  # of the others no row can be told from another
    if not len(known):
        return
    truth = truth[:, known]
    own = _mean_area(ranks[:, known], truth)
    rng = np.random.default_rng(0)
    shuffled = [_mean_area(ranks[:, known], rng.permutation(truth)) for _ in range(SHUFFLES)]
    chance = float(np.quantile(shuffled, SURE))
    if own > chance:
        return
    order, best = _best_order(ranks, truth)
    luck = max(_best_order(ranks, rng.permutation(truth))[1] for _ in range(SHUFFLES // 2))
    names = [labels[at] for at in _whole(order, known, len(labels))]
    fits = f"in the order {names} it would be {best:.2f}" if best > luck else "no other order of labels helps"
    raise ChanceError(
        where,
        f"on {len(truth)} {split} rows the outputs tell which labels a row has no better than chance (mean area under "
        f"the ROC curve {own:.2f}; shuffled rows reach {chance:.2f})",
        f"{fits}: is params.yaml: task.args.labels in the order of the model's outputs?",
        own - chance,
    )


def _mean_area(ranks: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Return the mean over labels of the area under the ROC curve, by Mann and Whitney's U: (Σ ranks − n(n+1)/2) / nm
    with n rows that have the label and m that don't.
    """
    has = truth.sum(0)
    areas = (np.einsum("ij,ij->j", ranks, truth) - has * (has + 1) / 2) / (has * (len(truth) - has))
    return float(areas.mean())


def _best_order(ranks: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[NDArray[np.int64], float]:
    """Return which output fits each label best, no output twice, and the mean area that makes."""
    from scipy.optimize import linear_sum_assignment

    has = truth.sum(0)
    areas = (truth.T @ ranks - (has * (has + 1) / 2)[:, None]) / (has * (len(truth) - has))[:, None]
    meant, outputs = linear_sum_assignment(-areas)
    return outputs.astype(np.int64), float(areas[meant, outputs].mean())


def _whole(outputs: NDArray[np.int64], known: NDArray[np.int64], count: int) -> list[int]:
    """Return the label of each output; those that fit none take the labels without a row, in their order."""
    label_of = dict(zip(outputs.tolist(), known.tolist(), strict=True))
    left = iter([at for at in range(count) if at not in set(known.tolist())])
    return [label_of[at] if at in label_of else next(left) for at in range(count)]
