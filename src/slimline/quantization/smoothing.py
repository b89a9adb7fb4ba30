"""SmoothQuant: part of what makes inputs hard to round is moved into the weights (Xiao et al. 2022, arXiv:2211.10438).

    y = (x ⊘ s)·(s ⊙ W),   s_j = max|x_j|^α / max|w_j|^(1−α)

for the input channel j of linear layers that read one tensor, the maxima over calibration data and over all of them.
One grid for the whole tensor then needn't span the few channels that are 100 times the others. Who divides by s:

- a LayerNorm that nothing but these layers reads (pre-norm) takes 1/s into its weight and bias, for nothing;
- a LayerNorm that a residual sum reads too (post-norm) stays; one multiplication goes before its readers' quantizer;
- behind attention, the values' projection takes 1/s into its rows: P·V keeps channels apart.

The float function stays. Between the layers of a feed-forward stands GELU, which no factor passes: nothing moves there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.errors import MethodError
from slimline.method import Batches
from slimline.pruning.encoder_parts import attentions, reads_by_channel
from slimline.quantization.tensor_flow import Watch, tensors
from slimline.task import call

SMALLEST = 1e-5
TOLERANCE = 1e-3  # of the largest answer: what float32 may lose by it
PASSING = {F.dropout, Tensor.contiguous, Tensor.to}


@dataclass(frozen=True)
class Move:
    """Linear layers that read one tensor, and the layer that makes it; ``folded``: that layer takes 1/s itself."""

    source: str
    readers: tuple[str, ...]
    folded: bool


class _Watch(Watch[str]):
    """Sees which linear layers read what a LayerNorm makes, and whether anything else does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        modules = dict(model.named_modules())
        self.norms = {id(each.weight): name for name, each in modules.items() if _has_weight(each, nn.LayerNorm)}
        self.linears = {id(each.weight): name for name, each in modules.items() if type(each) is nn.Linear}
        self.readers: dict[str, list[str]] = {}
        self.elsewhere: set[str] = set()

    def see(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], out: Any) -> None:
        read = self.known((args, given))
        if func is F.layer_norm:
            weight = given.get("weight", args[2] if len(args) > 2 else None)
            name = self.norms.get(id(weight))
            if name in self.readers:
                self.elsewhere.add(name)  # it runs twice
            elif name is not None:
                self.values[id(out)], self.readers[name] = name, []
        elif func is F.linear and len(args) > 1 and id(args[0]) in self.values and id(args[1]) in self.linears:
            self.readers[read[0]].append(self.linears[id(args[1])])
            return
        elif func in PASSING and len(read) == 1:
            self.values[id(out)] = read[0]
            return
        if tensors(out):
            self.elsewhere |= set(read)


def _has_weight(module: nn.Module, kind: type[nn.Module]) -> bool:
    return isinstance(module, kind) and module.weight is not None


@torch.no_grad()
def find_moves(model: nn.Module, inputs: dict[str, Tensor], names: Iterable[str]) -> list[Move]:
    """Return where ranges can move in a plain model, among the linear layers ``names``."""
    chosen = set(names)
    watch = _Watch(model)
    was_training = model.training
    model.eval()
    try:
        with watch:
            out = call(model, {name: value[:2] for name, value in inputs.items()})
        found = []
        for norm, readers in watch.readers.items():
            ours = tuple(dict.fromkeys(each for each in readers if each in chosen))
            once = all(sum(other.count(each) for other in watch.readers.values()) == 1 for each in ours)
            if ours and once:
                folded = len(ours) == len(readers) and norm not in watch.elsewhere and norm not in watch.known(out)
                found.append(Move(norm, ours, folded))
        for attention in attentions(model, inputs):
            found += [
                Move(name, (attention.output,), folded=True)
                for name in attention.projections
                if {name, attention.output} <= chosen and reads_by_channel(model, inputs, name, attention.output)
            ]
    finally:
        model.train(was_training)
    return found


@torch.no_grad()
def largest_inputs(model: nn.Module, names: Sequence[str], batches: Batches) -> dict[str, Tensor]:
    """Return max|x_j| [in] of each named linear layer over calibration data, rows and positions."""
    seen: dict[str, Tensor] = {}

    def see(name: str, _layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        largest = args[0].abs().flatten(0, -2).amax(0)
        seen[name] = torch.maximum(seen.get(name, largest), largest)

    layer_hooks.see_inputs(model, names, batches, see)
    return seen


@torch.no_grad()
def smooth(model: nn.Module, moves: Sequence[Move], alpha: float, batches: Batches) -> dict[str, Tensor]:
    """Move ranges into the weights of a plain ``model``, in place.

    Returns 1/s [in] by the name of each layer whose input must be multiplied by it. Raises MethodError where the
    function would change.
    """
    inputs, _ = next(iter(batches()))
    expected = call(model.eval(), inputs)
    peaks = largest_inputs(model, [each for move in moves for each in move.readers], batches)
    factors: dict[str, Tensor] = {}
    for move in moves:
        weights = [model.get_submodule(name).get_parameter("weight") for name in move.readers]
        s = scales(peaks[move.readers[0]], torch.stack([each.abs().amax(0) for each in weights]).amax(0), alpha)
        for weight in weights:
            weight.mul_(s)
        if move.folded:
            source = model.get_submodule(move.source)
            for name in ("weight", "bias"):
                if (made := getattr(source, name, None)) is not None:
                    made.div_(s.view(-1, *[1] * (made.ndim - 1)))
        else:
            factors |= dict.fromkeys(move.readers, 1 / s)
    with layer_hooks.before(model, factors, lambda name, _layer, args: (args[0] * factors[name],)):
        lost = (call(model, inputs) - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    if not lost <= TOLERANCE:
        raise MethodError(f"smooth: the model's answers would change by {lost:.2g} of the largest; leave smooth out")
    return factors


def scales(inputs: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """Return s [in] of the largest |input| and |weight| of each channel; a channel without either keeps its range."""
    s = inputs.pow(alpha) / weights.clamp(min=SMALLEST).pow(1 - alpha)
    return torch.where((inputs > 0) & (weights > 0), s.clamp(min=SMALLEST), 1.0)


def note(moves: Sequence[Move]) -> str:
    """Return one line on what was moved."""
    kept = [move for move in moves if not move.folded]
    layers = sum(len(move.readers) for move in moves)
    return (
        f"ranges of the inputs of {layers} linear layers moved into their weights: {len(moves) - len(kept)} layers "
        f"before them take the factor, behind {len(kept)} norms stands a multiplication"
    )
