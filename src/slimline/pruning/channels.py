"""Channels: which of them must go together, and slicing a model to those that stay.

Channels that must go together (a convolution's outputs, its BatchNorm, the inputs of what reads it, both sides of a
residual sum) form a group; torch-pruning's dependency graph finds them (Fang et al. 2023, arXiv:2301.12900). Slicing
is our own and needs nothing but indices, so that a stored model is rebuilt without tracing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.pruning import masks
from slimline.quantization.quantizers import Quantizer, smoothing_factor, weight_quantizer
from slimline.task import call

SLICED = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d)
PRECISIONS = (
    (torch.float64, 1e-9),
    (torch.float32, 1e-4),
)  # and how far, of the largest output, two orders of adding differ


@dataclass(frozen=True)
class Group:
    """Channels that live and die together: for each root channel, what it covers in each layer.

    ``members`` are (layer, side, indices): ``indices[c]`` are the positions that root channel c owns on that side.
    """

    members: list[tuple[str, str, list[list[int]]]]
    channels: int


def groups(model: nn.Module, inputs: dict[str, Tensor], outputs: int, where: str = "") -> list[Group]:
    """Return the prunable groups of a plain model. Layers that make the ``outputs`` answers are left alone.

    So are channels that go through what can't be sliced (a LayerNorm or a parameter over all channels, a convolution in
    groups, heads), and those where slicing gives other answers than zeroing what reads them does: the graph is traced,
    and a reshape can mislead it. ``where`` begins the message of an error.
    """
    import torch_pruning as tp

    names = {module: name for name, module in model.named_modules()}
    if embeddings := [name for module, name in names.items() if isinstance(module, nn.Embedding)]:
        raise MethodError(
            f"{where}{embeddings[0]} is an embedding: its channels run through every layer, norms and heads included, "
            "which slicing would break; drop layers (distill.keep), or quantize and factorize"
        )
    last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m.weight.shape[0] == outputs][-1:]
    model.eval()
    graph = tp.DependencyGraph()
    example = {name: value[:2] for name, value in inputs.items()}
    try:
        graph.build_dependency(model, example_inputs=example, forward_fn=call)
    except Exception as error:  # the tracer raises whatever the model's forward raises
        raise MethodError(f"{where}the dependency graph can't be traced: {error!r}") from error
    found = []
    for raw in graph.get_all_groups(ignored_layers=last, root_module_types=[nn.Conv2d, nn.Linear]):
        members: dict[tuple[str, str], list[list[int]]] = {}
        channels = len(raw[0].idxs)
        targets = [item.dep.target.module for item in raw]
        if any(_binds(module) for module in targets if module in names or isinstance(module, nn.Parameter)):
            continue
        for item, module in zip(raw, targets, strict=True):
            if module not in names or not isinstance(module, SLICED):
                continue
            side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
            owned = members.setdefault((names[module], side), [[] for _ in range(channels)])
            for position, root in zip(item.idxs, item.root_idxs, strict=True):
                owned[root].append(position)
        if any(names.get(module) == layer and side == "out" for module in last for layer, side in members):
            continue
        found.append(Group([(layer, side, owned) for (layer, side), owned in members.items()], channels))
    return _true_to(model, inputs, found, where)


def _binds(module: nn.Module | nn.Parameter) -> bool:
    """Return whether channels that pass through ``module`` have to stay: it holds numbers that slicing leaves."""
    if isinstance(module, nn.Parameter):
        return True
    if isinstance(module, SLICED):
        return isinstance(module, nn.Conv2d) and module.groups > 1 and not is_depthwise(module)
    return any(weight is not None and weight.numel() > 1 for weight in module.parameters())


def _true_to(model: nn.Module, inputs: dict[str, Tensor], found: list[Group], where: str) -> list[Group]:
    """Return the groups whose slicing gives what zeroing their readers' weights does, on two rows."""
    rows = {name: value[:2] for name, value in inputs.items()}
    if not found or _alike(model, rows, found, where):
        return found
    return [group for group in found if _alike(model, rows, [group], where)]


@torch.no_grad()
def _alike(model: nn.Module, rows: dict[str, Tensor], found: list[Group], where: str) -> bool:
    """Return whether the model answers alike when every second channel of the groups is gone, and when it is unread.

    Raises MethodError where it runs in no precision in which that can be told.
    """
    kept: dict[str, dict[str, list[int]]] = {}
    for group in found:
        for layer, side, owned in group.members:
            kept.setdefault(layer, {})[side] = sorted(position for each in owned[::2] for position in each)
    for dtype, tolerance in PRECISIONS:
        unread = copy.deepcopy(model).to(dtype)
        cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in rows.items()}
        for group in found:
            for layer, side, owned in group.members:
                reader = unread.get_submodule(layer)
                if side == "in" and isinstance(reader, nn.Conv2d | nn.Linear) and not is_depthwise(reader):
                    reader.weight[:, [position for each in owned[1::2] for position in each]] = 0
        try:
            expected = call(unread, cast)
        except RuntimeError:  # something in the model keeps to one precision
            continue
        try:
            answers = call(slice_model(copy.deepcopy(model).to(dtype), kept), cast)
        except (RuntimeError, IndexError):
            return False
        most = expected.abs().max().nan_to_num() * tolerance
        return answers.shape == expected.shape and torch.allclose(
            answers, expected, rtol=0, atol=float(most), equal_nan=True
        )
    raise MethodError(f"{where}slicing can't be checked: the model runs in neither float64 nor float32")


class Cost:
    """What a model costs at given group widths: each layer's full cost times the shares of its two sides that stay."""

    def __init__(self, found: list[Group], model: nn.Module, full: dict[str, float]) -> None:
        self._full = full
        self._channels = [group.channels for group in found]
        self._sides: dict[str, dict[int, list[tuple[int, float]]]] = {name: {} for name in full}
        self._layers: list[list[str]] = [[] for _ in found]
        for index, group in enumerate(found):
            for layer, side, owned in group.members:
                if layer not in full:
                    continue
                module = model.get_submodule(layer)
                axis = 0 if side == "out" or is_depthwise(module) else 1  # a depthwise layer's two sides are one
                size = module.get_parameter("weight").shape[axis]
                shares = self._sides[layer].setdefault(axis, [])
                if any(at == index for at, _ in shares):
                    continue
                shares.append((index, sum(map(len, owned)) / size))
                self._layers[index].append(layer)

    def layer(self, name: str, widths: list[int]) -> float:
        """Return what one layer costs when group g keeps ``widths[g]`` channels."""
        cost = self._full[name]
        for left in self.left(name, widths).values():
            cost *= left
        return cost

    def left(self, name: str, widths: list[int]) -> dict[int, float]:
        """Return the share of a layer's outputs (axis 0) and inputs (axis 1) that stays; a side that can't go lacks."""
        return {
            axis: 1 - sum(share * (1 - widths[at] / self._channels[at]) for at, share in shares)
            for axis, shares in self._sides[name].items()
        }

    def total(self, widths: list[int]) -> float:
        """Return what all layers cost."""
        return sum(self.layer(name, widths) for name in self._full)

    def saved(self, widths: list[int], index: int, narrower: int) -> float:
        """Return what is saved when group ``index`` alone goes down to ``narrower``."""
        after = [*widths[:index], narrower, *widths[index + 1 :]]
        return sum(self.layer(name, widths) - self.layer(name, after) for name in set(self._layers[index]))


def keep_channels(found: list[Group], scores: list[Tensor], widths: list[int]) -> dict[str, dict[str, list[int]]]:
    """Return {layer: {side: kept positions}} when each group keeps its ``widths`` best channels by ``scores``."""
    layers: dict[str, dict[str, list[int]]] = {}
    for group, score, width in zip(found, scores, widths, strict=True):
        channels = sorted(score.topk(width).indices.tolist())
        for layer, side, owned in group.members:
            layers.setdefault(layer, {})[side] = sorted(position for c in channels for position in owned[c])
    return layers


def slice_model(model: nn.Module, layers: dict[str, dict[str, list[int]]]) -> nn.Module:
    """Slice every layer to the kept positions of its output and input side, quantizers and masks included."""
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
        for name in ("weight", "bias", masks.NAME):
            _narrow(module, name, rows, 0)
        module.groups = module.in_channels = module.out_channels = len(rows)  # type: ignore[assignment]
        _narrow_scales(module, rows)
        return
    kind = ("in_channels", "out_channels") if isinstance(module, nn.Conv2d) else ("in_features", "out_features")
    if out is not None:
        rows = torch.tensor(out)
        for name in ("weight", "bias", masks.NAME):
            _narrow(module, name, rows, 0)
        _narrow_scales(module, rows)
        setattr(module, kind[1], len(out))
    if into is not None:
        for name in ("weight", masks.NAME):
            _narrow(module, name, torch.tensor(into), 1)
        _renew_blocks(module)
        _narrow_factor(module, torch.tensor(into))
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


def _narrow_factor(module: nn.Module, rows: Tensor) -> None:
    if smoothing_factor(module) is not None:
        _narrow(module.get_submodule("input_quantizer"), "factor", rows, 0)


def _renew_blocks(module: nn.Module) -> None:
    """Give weights that are quantized in blocks along their inputs new blocks, fitted to the weights that stay."""
    quantizer = getattr(module, "weight_quantizer", None)
    if isinstance(quantizer, Quantizer) and quantizer.spec.block is not None:
        weight = module.get_parameter("weight")
        renewed = weight_quantizer(quantizer.spec, weight)
        renewed.fit(weight)
        module.weight_quantizer = renewed
