"""The parts of a transformer that can get narrower: attention heads, and the neurons of its feed-forward layers.

Found by running the model on real rows, not by names: attention is a module that knows its head size and has three
linear layers of that many outputs times the heads; the layer that reads them comes next. A feed-forward layer are
linear layers called one after the other of which the last reads, channel by channel, what those before it say: shown by
disturbing one channel. Before it stands one layer, or a gate (GLU: Shazeer 2020, arXiv:2002.05202): both halves in one
layer twice as wide as what the last reads, or each in a layer of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.layers import calls, sharing
from slimline.pruning.channels import Group
from slimline.task import call

HEAD_SIZES = ("attention_head_size", "head_dim")


@dataclass(frozen=True)
class Attention:
    """One attention: the names of its module, its three projections and the layer that reads the heads."""

    module: str
    projections: tuple[str, str, str]
    output: str
    heads: int
    head_size: int

    @property
    def group(self) -> Group:
        """The heads as a group: root channel h owns ``head_size`` positions in each layer."""
        owned = [list(range(h * self.head_size, (h + 1) * self.head_size)) for h in range(self.heads)]
        return Group([*((name, "out", owned) for name in self.projections), (self.output, "in", owned)], self.heads)


def attentions(model: nn.Module, inputs: dict[str, Tensor]) -> list[Attention]:
    """Return every attention of a plain model, in the order of the calls."""
    order = called_once(model, inputs)
    found = []
    for name, module in model.named_modules():
        size = next((getattr(module, key) for key in HEAD_SIZES if isinstance(getattr(module, key, None), int)), None)
        own = [each for each in order if each.rpartition(".")[0] == name]
        if size is None or len(own) < 3:
            continue
        projections = (own[0], own[1], own[2])
        width = {_linear(model, each).out_features for each in projections}
        after = order[order.index(own[2]) + 1 :]
        if (
            len(width) != 1
            or not after
            or _linear(model, after[0]).in_features != (total := width.pop())
            or total % size
        ):
            continue
        found.append(Attention(name, projections, after[0], total // size, size))
    return sorted(found, key=lambda each: order.index(each.output))


def feed_forwards(model: nn.Module, inputs: dict[str, Tensor]) -> list[Group]:
    """Return the neurons of each feed-forward layer of a plain model, in the order of the calls.

    A neuron of a gate owns a position in each half, whether they lie in one layer or in two.
    """
    order = called_once(model, inputs)
    taken = {each for attention in attentions(model, inputs) for each in attention.projections}
    found = []
    for at, b in enumerate(order):
        channels = _linear(model, b).in_features
        owned: dict[str, list[list[int]]] = {}  # by the layers before b, the last first
        for a in reversed(order[:at]):
            parts = next((each for each in (1, 2) if _linear(model, a).out_features == each * channels), 0)
            firsts = [part * channels for part in range(parts)]  # what channel 0 of b's input may come from
            if a in taken or not firsts or not all(reads_by_channel(model, inputs, a, b, first) for first in firsts):
                break
            owned[a] = [[first + j for first in firsts] for j in range(channels)]
        if owned:
            before = [(a, "out", owned[a]) for a in reversed(owned)]
            found.append(Group([*before, (b, "in", [[j] for j in range(channels)])], channels))
    return found


def called_once(model: nn.Module, inputs: dict[str, Tensor]) -> list[str]:
    """Return the names of the linear layers in the order in which one run calls them, less those called twice."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    order = calls(model, names, lambda: call(model, _few(inputs)))
    return [name for name in order if order.count(name) == 1]


def reads_by_channel(model: nn.Module, inputs: dict[str, Tensor], a: str, b: str, channel: int = 0) -> bool:
    """Return whether channel 0 of the input of ``b``, and no other, changes with ``channel`` of the output of ``a``."""
    before = _input_of(model, inputs, b, a, lambda out: out)
    after = _input_of(model, inputs, b, a, partial(_disturb, channel=channel))
    if before is None or after is None or before.shape != after.shape:
        return False
    changed = (before != after).flatten(0, -2).any(0)
    return bool(changed[0]) and not bool(changed[1:].any())


def _disturb(out: Tensor, channel: int) -> Tensor:
    out = out.clone()
    out[..., channel] += 1.0 + out[..., channel].abs()
    return out


@torch.inference_mode()
def _input_of(
    model: nn.Module, inputs: dict[str, Tensor], layer: str, changed: str, change: Callable[[Tensor], Tensor]
) -> Tensor | None:
    seen: list[Tensor] = []
    with (
        layer_hooks.after(model, [changed], lambda _name, _layer, _args, out: change(out)),
        layer_hooks.before(model, [layer], lambda _name, _layer, args: seen.append(args[0].clone())),
    ):
        call(model.eval(), _few(inputs))
    return seen[0] if seen else None


def _few(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[:2] for name, tensor in inputs.items()}


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)  # noqa: S101  (called_once names no others)
    return layer


def runs(model: nn.Module, inputs: dict[str, Tensor]) -> str | None:
    """Return why a copy of ``model`` doesn't run, or None."""
    try:
        with torch.inference_mode():
            call(sharing(model).eval(), _few(inputs))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        return " ".join(str(error).split())
    return None
