"""Structured pruning: whole channels go, so that dense kernels really get smaller.

Channels that must go together (a convolution's outputs, its BatchNorm, the inputs of what reads it, both sides of a
residual sum) form a group; torch-pruning's dependency graph finds them (Fang et al. 2023, arXiv:2301.12900). The score
of a channel is the sum over the group's weights w that belong to it:

    l1      Σ |w|                 l2      √Σ w²                  (Li et al. 2017, arXiv:1608.08710)
    taylor  |Σ w · ∂L/∂w|                                        (Molchanov et al. 2019, arXiv:1906.10771)

Magnitudes are divided by their group's mean, so that groups of different fan-in compare; Taylor scores share the unit
of the loss and compare as they are. ``scope: global`` ranks all channels together, ``layer`` takes the same share of
each group. A group keeps a multiple of ``multiple`` channels, since vector units run in such widths.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.quantizers import Quantizer, plain
from slimline.task import call


@dataclass(frozen=True)
class Group:
    """Channels that live and die together: for each root channel, what it covers in each layer.

    ``members`` are (layer, side, indices): ``indices[c]`` are the positions that root channel c owns on that side.
    """

    members: list[tuple[str, str, list[list[int]]]]
    channels: int


@dataclass(frozen=True)
class Structured(Method):
    """Prune ``ratio`` of all channels by ``importance``; ``max_ratio`` caps what one group may lose."""

    importance: Literal["l1", "l2", "taylor"] = "taylor"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.4
    multiple: Annotated[int, Field(ge=1)] = 8
    max_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    scope: Literal["global", "layer"] = "global"

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        bare = plain(model)
        inputs, _ = next(iter(batches()))
        found = groups(bare, inputs, outputs=context.task.signature()["outputs"][0]["shape"][-1])
        if not found:
            raise MethodError(f"{context.where}: structured found no channels that can be pruned in this model")
        gradients = self._gradients(bare, batches, context) if self.importance == "taylor" else {}
        scores = [self._score(group, bare, gradients) for group in found]
        kept = self._keep(found, scores)
        layers: dict[str, dict[str, list[int]]] = {}
        notes = []
        for group, channels in zip(found, kept, strict=True):
            for layer, side, owned in group.members:
                layers.setdefault(layer, {})[side] = sorted(position for c in channels for position in owned[c])
            notes.append(f"{group.members[0][0]}: {len(channels)} of {group.channels} channels kept")
        state = model.state_dict()
        sliced = slice_model(copy.deepcopy(model), layers).state_dict()
        tensors = {name: sliced[name] for name in sliced if sliced[name].shape != state[name].shape}
        return Plan(Edit("structured", {"kept": layers}), tensors, notes)

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return slice_model(model, edit.data["kept"])

    def _gradients(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Tensor]:
        """Return ∂L/∂w summed over the calibration batches, by parameter name."""
        model.eval()
        model.zero_grad()
        for inputs, y in batches():
            context.task.loss(call(model, inputs), y).backward()  # type: ignore[no-untyped-call]
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    def _score(self, group: Group, model: nn.Module, gradients: dict[str, Tensor]) -> Tensor:
        """Return one score a channel of ``group`` ([channels], float64): the sum over all that the channel owns."""
        total = torch.zeros(group.channels, dtype=torch.float64)
        for layer, side, owned in group.members:
            module = model.get_submodule(layer)
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            weight = module.weight.detach()
            if self.importance == "taylor":
                if f"{layer}.weight" not in gradients:
                    continue
                values = weight * gradients[f"{layer}.weight"]
            else:
                values = weight.abs() if self.importance == "l1" else weight.square()
            axis = 0 if side == "out" or is_depthwise(module) else 1
            by_position = values.double().movedim(axis, 0).flatten(1).sum(1)
            if self.importance == "taylor":  # a channel's outputs and its readers see the same error: count each side
                by_position = by_position.abs()
            total += torch.stack([by_position[positions].sum() for positions in owned])
        if self.importance == "l2":
            total = total.sqrt()
        return total if self.importance == "taylor" else total / total.mean().clamp(min=1e-12)

    def _keep(self, found: list[Group], scores: list[Tensor]) -> list[list[int]]:
        """Return the channels to keep, group by group: the best overall, each group rounded to the multiple."""
        if self.scope == "global":
            everything = torch.cat(scores).sort().values
            threshold = everything[min(len(everything) - 1, int(self.ratio * len(everything)))]
            wanted = [int((score >= threshold).sum()) for score in scores]
        else:
            wanted = [round(group.channels * (1 - self.ratio)) for group in found]
        kept = []
        for group, score, want in zip(found, scores, wanted, strict=True):
            least = max(1, round(group.channels * (1 - self.max_ratio)))
            count = round(max(want, least) / self.multiple) * self.multiple
            count = min(group.channels, max(count, min(self.multiple, group.channels)))
            kept.append(sorted(score.topk(count).indices.tolist()))
        return kept


def groups(model: nn.Module, inputs: dict[str, Tensor], outputs: int) -> list[Group]:
    """Return the prunable groups of a plain model. Layers that make the ``outputs`` answers are left alone."""
    import torch_pruning as tp

    names = {module: name for name, module in model.named_modules()}
    last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m.weight.shape[0] == outputs][-1:]
    model.eval()
    graph = tp.DependencyGraph()
    example: Any = next(iter(inputs.values()))[:2] if len(inputs) == 1 else {k: v[:2] for k, v in inputs.items()}
    try:
        graph.build_dependency(model, example_inputs=example)
    except Exception as error:  # the tracer raises whatever the model's forward raises
        raise MethodError(f"structured: the dependency graph can't be traced: {error!r}") from error
    found = []
    for raw in graph.get_all_groups(ignored_layers=last, root_module_types=[nn.Conv2d, nn.Linear]):
        members: dict[tuple[str, str], list[list[int]]] = {}
        channels = len(raw[0].idxs)
        for item in raw:
            module = item.dep.target.module
            if module not in names or not isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d):
                continue
            side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
            owned = members.setdefault((names[module], side), [[] for _ in range(channels)])
            for position, root in zip(item.idxs, item.root_idxs, strict=True):
                owned[root].append(position)
        if any(names.get(module) == layer and side == "out" for module in last for layer, side in members):
            continue
        found.append(Group([(layer, side, owned) for (layer, side), owned in members.items()], channels))
    return found


def slice_model(model: nn.Module, layers: dict[str, dict[str, list[int]]]) -> nn.Module:
    """Slice every layer to the kept positions of its output and input side, quantizers included."""
    for name, sides in layers.items():
        slice_layer(model.get_submodule(name), sides.get("out"), sides.get("in"))
    return model


def slice_layer(module: nn.Module, out: list[int] | None, into: list[int] | None) -> None:
    """Keep only output positions ``out`` and input positions ``into`` of a layer (None = all), in place."""
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        if out is not None or into is not None:
            rows = torch.tensor(out if out is not None else into)
            for name in ("weight", "bias", "running_mean", "running_var"):
                _narrow(module, name, rows, 0)
            module.num_features = len(rows)
        return
    if is_depthwise(module):
        rows = torch.tensor(out if out is not None else into)
        for name in ("weight", "bias"):
            _narrow(module, name, rows, 0)
        module.groups = module.in_channels = module.out_channels = len(rows)  # type: ignore[assignment]
        _narrow_scales(module, rows)
        return
    kind = ("in_channels", "out_channels") if isinstance(module, nn.Conv2d) else ("in_features", "out_features")
    if out is not None:
        rows = torch.tensor(out)
        for name in ("weight", "bias"):
            _narrow(module, name, rows, 0)
        _narrow_scales(module, rows)
        setattr(module, kind[1], len(out))
    if into is not None:
        _narrow(module, "weight", torch.tensor(into), 1)
        setattr(module, kind[0], len(into))


def is_depthwise(module: nn.Module) -> bool:
    """Return whether a convolution has one input channel a group."""
    return isinstance(module, nn.Conv2d) and module.groups > 1 and module.groups == module.in_channels


def _narrow(module: nn.Module, name: str, rows: Tensor, axis: int) -> None:
    tensor = getattr(module, name, None)
    if tensor is None:
        return
    sliced = tensor.detach().index_select(axis, rows).clone()
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(sliced, requires_grad=tensor.requires_grad))
    else:
        module.register_buffer(name, sliced)


def _narrow_scales(module: nn.Module, rows: Tensor) -> None:
    quantizer = getattr(module, "weight_quantizer", None)
    if isinstance(quantizer, Quantizer) and quantizer.spec.axis == 0:
        for name in ("scale", "zero_point"):
            _narrow(quantizer, name, rows, 0)
