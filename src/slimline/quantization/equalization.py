"""Cross-layer equalization: neighbouring layers share out their channels' ranges (Nagel et al. 2019, arXiv:1906.04721).

ReLU(s·x) = s·ReLU(x) for s > 0, so channel i of a layer may be divided by s_i where the layer that reads it is
multiplied by s_i; the function stays. With r¹_i the largest |w| that makes channel i and r²_i the largest that reads it

    s_i = √(r¹_i / r²_i):   W¹_i ← W¹_i/s_i,  b¹_i ← b¹_i/s_i,  W²_·i ← s_i·W²_·i,   so that both become √(r¹_i·r²_i)

over all pairs, again and again, until nothing moves. A range that one grid for the whole tensor must hold is then no
wider than it needs to be. Which layers are pairs is seen in one forward run: every function called is watched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.quantization.tensor_flow import Watch, tensors
from slimline.task import call

ROUNDS, STILL = 50, 1e-3
# f(s·x) = s·f(x) for s > 0, value by value and channel by channel
ELEMENTWISE = {
    F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.leaky_relu, F.dropout, Tensor.contiguous,
}  # fmt: skip
OVER_PLACES = {
    F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d,
    torch.flatten, Tensor.flatten, torch.reshape, Tensor.reshape, Tensor.view,
}  # fmt: skip
SATURATING = {F.relu6, F.hardtanh, F.hardtanh_}
CONVOLUTIONS, LINEAR = {torch.conv2d, F.conv2d}, {F.linear}


@dataclass(frozen=True)
class Pair:
    """A layer and the only one that reads it, nothing but ReLU, pooling and the like between them."""

    first: str
    second: str


@dataclass
class _Value:
    """What is known of a tensor: the layer that made it, the axis of its channels, whether it was clipped."""

    layer: str
    axis: int
    clipped: bool = False


class _Watch(Watch[_Value]):
    """Follows each layer's output through the functions that are called."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.names = {id(layer.weight): name for name, layer in layers.items()}
        self.readers: dict[str, list[tuple[str, bool]]] = {name: [] for name in layers}
        self.elsewhere: set[str] = set()
        self.runs: Counter[str] = Counter()

    def see(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], out: Any) -> None:
        read = self.known((args, given))
        name = self.names.get(id(args[1])) if func in CONVOLUTIONS | LINEAR and len(args) > 1 else None
        if name is not None:
            axis = 1 if func in CONVOLUTIONS else args[0].ndim - 1
            self.runs[name] += 1
            for value in read:
                self.readers[value.layer].append((name, value.clipped))
            self.elsewhere |= {value.layer for value in read if value.axis != axis}
            self.values[id(out)] = _Value(name, axis)
        elif len(read) == 1 and _keeps_channels(func, read[0].axis, args[0], out):
            self.values[id(out)] = replace(read[0], clipped=read[0].clipped or func in SATURATING)
        elif tensors(out):
            self.elsewhere |= {value.layer for value in read}


def _keeps_channels(func: Callable[..., Any], axis: int, before: Any, out: Any) -> bool:
    """Return whether ``axis`` still counts channels, each with its own run of places where axes were flattened."""
    if func in ELEMENTWISE or func in SATURATING:
        return True
    if func not in OVER_PLACES or axis != 1 or out.ndim < 2 or len(before) != len(out):
        return False
    return bool(out.ndim == 2 or out.shape[1] == before.shape[1])


@torch.no_grad()
def find_pairs(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[list[Pair], list[str]]:
    """Return the pairs of a plain model in the order they run, and a note on each that saturation forbids."""
    layers: dict[str, nn.Module] = {
        name: each for name, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)
    }
    watch = _Watch(layers)
    was_training = model.training
    model.eval()
    try:
        with watch:
            out = call(model, {name: value[:2] for name, value in inputs.items()})
    finally:
        model.train(was_training)
    watch.elsewhere |= {value.layer for value in watch.known(out)}
    pairs, notes = [], []
    for name in watch.runs:
        if name in watch.elsewhere or len(watch.readers[name]) != 1:
            continue
        ((second, clipped),) = watch.readers[name]
        if watch.runs[name] == watch.runs[second] == 1:
            if clipped:
                notes.append(f"{name} and {second} are not equalized: between them activations are clipped (ReLU6)")
            else:
                pairs.append(Pair(name, second))
    return pairs, notes


@torch.no_grad()
def equalize(model: nn.Module, inputs: dict[str, Tensor], names: Iterable[str]) -> list[str]:
    """Equalize all pairs among the layers ``names`` of a plain ``model`` in place, and return notes on it."""
    chosen = set(names)
    pairs, notes = find_pairs(model, inputs)
    pairs = [pair for pair in pairs if {pair.first, pair.second} <= chosen]
    for _ in range(ROUNDS):
        moved = [_equalize_pair(model.get_submodule(pair.first), model.get_submodule(pair.second)) for pair in pairs]
        if max(moved, default=0.0) < STILL:
            break
    return [f"{len(pairs)} pairs of layers equalized", *notes]


def _equalize_pair(first: nn.Module, second: nn.Module) -> float:
    """Share out the ranges of one pair and return the largest |log s|."""
    made, reading = first.get_parameter("weight"), second.get_parameter("weight")
    # a grouped layer's inputs are those of each group in turn: [groups, outputs, inputs, places]
    groups = second.groups if isinstance(second, nn.Conv2d) else 1
    grouped = reading.data.view(groups, len(reading) // groups, reading.shape[1], -1)
    places = groups * reading.shape[1] // len(made)  # a flattened image has several inputs a channel
    one = made.abs().flatten(1).amax(1)
    two = grouped.abs().amax((1, 3)).view(len(made), places).amax(1)
    both = (one > 0) & (two > 0)  # a channel that is never made, or never read, has nothing to share
    s = torch.where(both, (one / two.where(both, 1)).sqrt(), 1.0)
    made.div_(s.view(-1, *[1] * (made.ndim - 1)))
    if first.bias is not None:
        first.get_parameter("bias").div_(s)
    grouped.mul_(s.repeat_interleave(places).view(groups, 1, -1, 1))
    return float(s.log().abs().max())
