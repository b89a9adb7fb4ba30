"""``bits: auto``: each layer's weights get the width that the model can bear, within a budget.

For each layer l and width b two things are measured (``slimline.quantization.costs``): the divergence Ω_l(b), and what
the layer takes, s_l(b). Then

    min Σ_l Ω_l(b_l)   subject to   Σ_l s_l(b_l) ≤ budget           (``slimline.knapsack``, exact)

as HAWQ-V2 and V3 do with a Hessian in place of a measured Ω (Dong et al. 2020, arXiv:1911.03852; Yao et al. 2021,
arXiv:2011.10680). The budget is one of

    bytes       of the model file. s_l = packed weights and scales; the file is written and its real size decides
    latency     as a share of the input model's time on the target. s_l = how the time of the whole model changes when
                that layer alone takes another width; what is chosen is measured as a whole, and that decides
    max_loss    how far the validation loss may rise. The smallest choice on the front of bytes and divergence whose
                loss, measured with all layers at their widths, is within it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from slimline import knapsack, measure
from slimline.errors import MethodError
from slimline.knapsack import Point
from slimline.quantization.costs import Trial
from slimline.quantization.grids import FLOAT
from slimline.quantization.quantizers import is_quantized
from slimline.sensitivity import Sensitivity

if TYPE_CHECKING:
    from slimline.quantization.plan import Quantize

TRIES = 6  # whole models written or timed on the way to a budget


def widths(trial: Trial) -> dict[str, Any]:
    """Choose a width for each layer, within the budget."""
    method, where = trial.method, trial.context.where
    choices = sorted(set(method.choices))
    if FLOAT in choices and is_quantized(trial.model):
        raise MethodError(f"{where}.choices: 32: the model carries quantizers, and this method takes none off")
    names = [name for name in trial.layers() if not _pinned(method, name)]
    if not names:
        raise MethodError(f"{where}.bits: auto: no layer is left to choose a width for; layers gives all their own")
    study = Sensitivity(trial.model, trial.context)
    costs = trial.costs(study, names, choices)
    losses = [[costs[name, bits].divergence if bits != FLOAT else 0.0 for bits in choices] for name in names]
    assert method.budget is not None  # noqa: S101  (checked)
    if method.budget.latency is not None:
        sizes, unit = trial.times(names, choices), "of the time"
    else:
        sizes, unit = [[trial.weight_bytes(name, bits) for bits in choices] for name in names], "bytes"
    front = knapsack.frontier(sizes, losses)

    def widths_of(point: Point) -> dict[str, int]:
        return {name: choices[option] for name, option in zip(names, point.options, strict=True)}

    if method.budget.bytes is not None:
        point, summary = _within_bytes(trial, front, widths_of, method.budget.bytes)
    elif method.budget.latency is not None:
        point, summary = _within_latency(trial, front, widths_of, method.budget.latency)
    else:
        point, summary = _within_loss(trial, front, widths_of, method.budget.max_loss or 0.0, study)
    layers = {}
    for name, option, size, loss in zip(names, point.options, sizes, losses, strict=True):
        layers[name] = {"bits": choices[option], "why": _why(choices, option, size, loss, unit)}
    return {"layers": layers, "summary": summary}


def _within_bytes(
    trial: Trial, front: list[Point], widths_of: Callable[[Point], dict[str, int]], budget: int
) -> tuple[Point, str]:
    """Return the point of least divergence whose file, as written, is no larger than ``budget``."""
    signature = trial.context.task.signature()
    written: dict[int, int] = {}
    index = found = 0
    while index < len(front) and index not in written and len(written) < TRIES:
        written[index] = measure.file_bytes(trial.quantized(widths_of(front[index])), signature)
        beside = written[index] - front[index].size  # graph, biases and all else that has one size
        found = max((at for at, size in written.items() if size <= budget), default=0)
        index = max((at for at, point in enumerate(front) if point.size + beside <= budget), default=0)
        if index in written:
            index = found + 1  # sizes beside the weights differ by some bytes between widths
    if written[0] > budget:
        raise MethodError(
            f"{trial.context.where}.budget.bytes: {budget:,} can't be reached with these choices: the smallest file "
            f"is {written[0]:,} bytes; raise it, or give choices a narrower width"
        )
    return front[found], f"the file has {written[found]:,} of {budget:,} bytes; {_sum_of(front[found])}"


def _within_latency(
    trial: Trial, front: list[Point], widths_of: Callable[[Point], dict[str, int]], budget: float
) -> tuple[Point, str]:
    """Return the point of least divergence at which the whole model takes no more than ``budget`` of its time."""
    shares: dict[int, float] = {}

    def is_within(index: int) -> bool:
        shares[index] = trial.share_of_time(trial.quantized(widths_of(front[index])))
        return shares[index] <= budget

    found = _turn(len(front), is_within, TRIES)
    if found is None:
        raise MethodError(
            f"{trial.context.where}.budget.latency: {budget:g} can't be reached with these choices: the fastest "
            f"takes {shares[0]:.2f} of the input model's time, measured; raise it, or give choices a faster width"
        )
    summary = f"{shares[found]:.2f} of the input model's time where {budget:g} was asked, measured on the whole model"
    return front[found], f"{summary}; {_sum_of(front[found])}"


def _within_loss(
    trial: Trial, front: list[Point], widths_of: Callable[[Point], dict[str, int]], budget: float, study: Sensitivity
) -> tuple[Point, str]:
    """Return the smallest point at which the whole model's validation loss rises by no more than ``budget``."""
    rises: dict[int, float] = {}
    last = len(front) - 1

    def is_within(index: int) -> bool:
        at = last - index
        rises[at] = study.rise(trial.quantized(widths_of(front[at]), refined=True))
        return rises[at] <= budget

    found = _turn(len(front), is_within, math.ceil(math.log2(len(front) + 1)) + 1)
    if found is None:
        raise MethodError(
            f"{trial.context.where}.budget.max_loss: {budget:g} can't be reached with these choices: at the widest "
            f"the validation loss rises by {rises[last]:.4f}; raise it, or give choices a wider width"
        )
    at = last - found
    summary = f"the validation loss rises by {rises[at]:.4f} where {budget:g} was allowed, all layers together"
    return front[at], f"{summary}; {_sum_of(front[at])}"


def _pinned(method: Quantize, name: str) -> bool:
    """Return whether ``layers`` gives the layer's weights a width already."""
    return any(
        fnmatchcase(name, pattern) and (each.bits is not None or each.weight_bits is not None)
        for pattern, each in method.layers.items()
    )


def _turn(count: int, is_within: Callable[[int], bool], tries: int) -> int | None:
    """Return the last position of 0 … count − 1 found to be within, by bisection, or None when 0 isn't.

    ``is_within`` holds up to a turn and not behind it; where noise blurs that, what is returned was within.
    """
    if not is_within(0):
        return None
    low, high = 0, count
    for _ in range(tries):
        if high - low <= 1:
            break
        middle = (low + high) // 2 if high < count or low else count - 1  # the far end may do
        low, high = (middle, high) if is_within(middle) else (low, middle)
    return low


def _sum_of(point: Point) -> str:
    return f"the layers' divergences sum to {point.loss:.3g}"


def _why(choices: Sequence[int], option: int, sizes: Sequence[float], losses: Sequence[float], unit: str) -> str:
    """Return what a layer's width costs beside the others it could have had."""

    def told(at: int) -> str:
        if unit == "bytes":
            return f"divergence {losses[at]:.2g}, {sizes[at]:,.0f} bytes"
        return f"divergence {losses[at]:.2g}, {sizes[at] - min(sizes):+.3f} {unit} over its fastest"

    def width(at: int) -> str:
        return "floating point" if choices[at] == FLOAT else f"{choices[at]} bits"

    others = "; ".join(f"{width(at)}: {told(at)}" for at in range(len(choices)) if at != option)
    return f"{width(option)}: {told(option)} ({others})"
