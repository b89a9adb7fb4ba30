"""How much a channel matters: a group of coupled layers in, one score a channel out.

The score of a channel sums over all weights w that belong to it, g = ∂L/∂w on calibration data:

    l1        Σ |w|                                              (Li et al. 2017, arXiv:1608.08710)
    l2        √Σ w²
    taylor    |Σ w·g|, each side of each layer                   (Molchanov et al. 2019, arXiv:1906.10771)
    fisher    ½ Σ w² · E[g²], E over single rows                 (Theis et al. 2018, arXiv:1801.05787)
    hessian   ½ (Σ h / n) · Σ w², h the Hessian's diagonal       (Yu et al. 2022, arXiv:2101.08940)
    bn-scale  Σ |γ| / norms                                      (Liu et al. 2017, arXiv:1708.06519)
    movement  −Σ_t Σ w_t·g_t of a short fine-tuning              (Sanh et al. 2020, arXiv:2005.07683)
    random    uniform in [0, 1), the control

Magnitudes are divided by their group's mean, so that groups of different fan-in compare. Scores from gradients share
the unit of the loss, BatchNorm's γ the unit of normalized activations: they compare as they are. h is Hutchinson's
estimate E[v ⊙ Hv] with v of ±1 drawn by the seed; below 0 it counts as 0. Movement (``movement.py``) reads
training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from slimline.errors import MethodError
from slimline.method import Batches, Context
from slimline.pruning import blocks
from slimline.pruning.channels import Group, is_depthwise
from slimline.pruning.movement import Tuning, movements
from slimline.task import call

OfChannels = Literal["l1", "l2", "taylor", "fisher", "hessian", "bn-scale", "random"]
OfParts = Literal["l1", "l2", "taylor", "fisher", "movement", "random"]  # of a transformer: heads and neurons
Importance = OfChannels | OfParts
Sensitivity = dict[str, Tensor]
PROBES = 8  # draws of v a batch


def scores(
    importance: Importance,
    found: list[Group],
    model: nn.Module,
    batches: Batches,
    context: Context,
    tuning: Tuning | None = None,
) -> list[Tensor]:
    """Return one score a channel ([channels], float64) for each group of the plain ``model``. Movement has a tuning.

    Raises MethodError for bn-scale when a group has no BatchNorm with a scale, and at a score that is not finite.
    """
    if importance == "movement":
        seen = movements(model, {name for group in found for name, _, _ in group.members}, context, tuning or Tuning())
        every = [score(importance, group, model, seen) for group in found]
    else:
        every = _scores(importance, found, model, batches, context)
    data = "training" if importance == "movement" else "calibration"
    for group, each in zip(found, every, strict=True):
        if not bool(each.isfinite().all()):
            raise MethodError(
                f"{context.where}: layer {group.members[0][0]}: its {importance} scores are not finite; "
                f"are its weights, and the {data} data?"
            )
    return every


def _scores(
    importance: Importance, found: list[Group], model: nn.Module, batches: Batches, context: Context
) -> list[Tensor]:
    if importance == "random":
        generator = torch.Generator().manual_seed(context.seed)
        return [torch.rand(group.channels, generator=generator, dtype=torch.float64) for group in found]
    if importance == "bn-scale":
        return [_scales(group, model, context.where) for group in found]
    wanted = {f"{layer}.weight" for group in found for layer, _, _ in group.members}
    seen = sensitivities(importance, model, batches, context, wanted)
    return [score(importance, group, model, seen) for group in found]


def sensitivities(
    importance: Importance, model: nn.Module, batches: Batches, context: Context, wanted: Collection[str] | None = None
) -> Sensitivity:
    """Return by parameter name: g summed over batches (taylor), E[g²] (fisher), h (hessian); else nothing.

    ``wanted`` are the parameters that are asked for, None: all. The model is left without gradients: they are as large
    as it.
    """
    with _frozen(model, wanted):
        found = _sensitivities(importance, model, batches, context)
        model.zero_grad()
        return found


def _sensitivities(importance: Importance, model: nn.Module, batches: Batches, context: Context) -> Sensitivity:
    if importance == "taylor":
        return gradients(model, batches, context)
    if importance == "fisher":
        return _squared_gradients(model, batches, context)
    if importance == "hessian":
        return _curvatures(model, batches, context)
    return {}


def score(importance: Importance, group: Group, model: nn.Module, seen: Sensitivity) -> Tensor:
    """Return one score a channel of ``group`` ([channels], float64) from weights and what ``sensitivities`` saw."""
    if importance == "taylor":  # a channel's outputs and its readers see the same error: count each side
        return summed(group, model, lambda w, g: w * g, seen, side=torch.abs)
    if importance == "fisher":
        return summed(group, model, lambda w, f: w.square() * f / 2, seen)
    if importance == "hessian":
        trace = summed(group, model, lambda _, h: h, seen)
        size = summed(group, model, lambda w, _: torch.ones_like(w), seen)
        return trace.clamp(min=0) / (2 * size) * summed(group, model, lambda w, _: w.square(), seen)
    if importance == "movement":
        return summed(group, model, lambda _, s: s, seen)
    total = summed(group, model, (lambda w, _: w.abs()) if importance == "l1" else (lambda w, _: w.square()))
    total = total.sqrt() if importance == "l2" else total
    return total / total.mean().clamp(min=1e-12)


def summed(
    group: Group,
    model: nn.Module,
    value: Callable[[Tensor, Tensor], Tensor],
    seen: Sensitivity | None = None,
    *,
    side: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Return, per channel, the sum of ``value(weight, seen)`` over its positions in all layers of the group.

    ``side`` is applied to the sums of one side of one layer. Without ``seen`` all layers count, with it those in it.
    """
    total = torch.zeros(group.channels, dtype=torch.float64)
    for layer, at, owned in group.members:
        module = model.get_submodule(layer)
        if not isinstance(module, nn.Conv2d | nn.Linear) or (seen is not None and f"{layer}.weight" not in seen):
            continue
        weight = module.weight.detach()
        values = value(weight, weight if seen is None else seen[f"{layer}.weight"])
        axis = 0 if at == "out" or is_depthwise(module) else 1
        by_position = side(values.double().movedim(axis, 0).flatten(1).sum(1))
        total += torch.stack([by_position[positions].sum() for positions in owned])
    return total


def _scales(group: Group, model: nn.Module, where: str) -> Tensor:
    """Return the mean |γ| of each channel over the group's BatchNorms."""
    rows = []
    for layer, _, owned in group.members:
        module = model.get_submodule(layer)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            scale = module.weight.detach().double().abs()
            rows.append(torch.stack([scale[positions].sum() for positions in owned]))
    if not rows:
        raise MethodError(
            f"{where}.importance: bn-scale needs a BatchNorm, and the channels of {group.members[0][0]} have none "
            "(quantizing folds them); prune before, or choose another importance"
        )
    return torch.stack(rows).mean(0)


@contextmanager
def _frozen(model: nn.Module, wanted: Collection[str] | None) -> Iterator[None]:
    """Ask for no gradients of parameters that aren't ``wanted``, if some are: half of an encoder are embeddings."""
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    chosen = set(named) if wanted is None or not set(named) & set(wanted) else set(wanted)
    others = [each for name, each in named.items() if name not in chosen]
    for each in others:
        each.requires_grad = False
    try:
        yield
    finally:
        for each in others:
            each.requires_grad = True


@contextmanager
def _recomputed(model: nn.Module) -> Iterator[None]:
    """Let the layers of a transformer, the blocks of a ModuleList, keep what they read alone until their gradient.

    What is inside is computed once more then (Chen et al. 2016, arXiv:1604.06174), to the same numbers.
    """
    found: list[str] = []
    for name, each in model.named_modules():
        if isinstance(each, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in found):
            found += blocks.inside(model, name)
    chosen = {model.get_submodule(name) for name in found}
    given = {block: vars(block)["forward"] for block in chosen if "forward" in vars(block)}
    for block in chosen:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in chosen:
            del block.forward
            vars(block).update({"forward": given[block]} if block in given else {})


def gradients(model: nn.Module, batches: Batches, context: Context) -> Sensitivity:
    """Return g summed over the calibration batches, by parameter name. Leaves it in ``model``'s gradients."""
    model.eval()
    model.zero_grad()
    with _recomputed(model):
        for inputs, y in batches():
            context.task.loss(call(model, inputs), y).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _squared_gradients(model: nn.Module, batches: Batches, context: Context) -> Sensitivity:
    """Return E[g²] over single calibration rows: the diagonal of the empirical Fisher information."""
    total: Sensitivity = {}
    rows = 0
    model.eval()
    for inputs, y in batches():
        for at in range(len(y)):
            model.zero_grad()
            row = {name: value[at : at + 1] for name, value in inputs.items()}
            context.task.loss(call(model, row), y[at : at + 1]).backward()  # type: ignore[no-untyped-call]
            rows += 1
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    total[name] = total.get(name, torch.zeros_like(parameter.grad)) + parameter.grad.square()
    return {name: value / rows for name, value in total.items()}


def _curvatures(model: nn.Module, batches: Batches, context: Context) -> Sensitivity:
    """Return E[v ⊙ Hv] over calibration batches and draws of v: an unbiased estimate of the Hessian's diagonal."""
    generator = torch.Generator().manual_seed(context.seed)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    count = 0
    model.eval()
    for inputs, y in batches():
        loss = context.task.loss(call(model, inputs), y)
        first = torch.autograd.grad(loss, list(named.values()), create_graph=True, allow_unused=True)
        pairs = zip(named.items(), first, strict=True)
        used = [(name, p, g) for (name, p), g in pairs if g is not None and g.requires_grad]
        for _ in range(PROBES):
            draws = [torch.randint(0, 2, p.shape, generator=generator).to(p.dtype) * 2 - 1 for _, p, _ in used]
            product = torch.autograd.grad(
                [g for _, _, g in used], [p for _, p, _ in used], draws, retain_graph=True, allow_unused=True
            )
            for (name, _, _), v, hv in zip(used, draws, cast(tuple[Tensor | None, ...], product), strict=True):
                total[name] += v * hv if hv is not None else 0
            count += 1
    return {name: value / count for name, value in total.items()}
