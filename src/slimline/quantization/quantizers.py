"""Fake-quantizers, and the layers that carry them. They stand below the methods: quantize places them, factorize and
prune keep them, export turns them into integers. Their grids are in ``grids``, what sets their ranges in ``observers``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.layers import Add, sharing
from slimline.quantization.grids import (
    TINY,
    Spec,
    by_scale,
    container,
    fake_quantize,
    gradient_scaled,
    scale_and_zero_point,
    scale_shape,
)
from slimline.quantization.observers import Observer, least_error_range

NATIVE = (8, 16)  # widths whose integers fill their container
_exporting: ContextVar[bool] = ContextVar("exporting", default=False)


class Quantizer(nn.Module):
    """Rounds a tensor to the grid of its spec. ``scale`` and ``zero_point`` are its whole state.

    ``channels`` and ``blocks`` are the shape of its scales where the spec has an axis, and blocks. A smooth one has a
    ``factor`` [channels] too, by which the last axis is multiplied before: the weights it feeds were divided by that.
    """

    scale: Tensor
    zero_point: Tensor
    factor: Tensor

    def __init__(self, spec: Spec, channels: int | None = None, blocks: Sequence[int] = ()) -> None:
        super().__init__()
        shape = () if spec.axis is None else (channels or 1, *blocks)
        self.spec = spec
        self.observer: Observer | None = None
        if spec.learned:
            self.scale = nn.Parameter(torch.ones(shape))
        else:
            self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))
        if spec.smooth:
            self.register_buffer("factor", torch.ones(channels or 1))

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Set scale and zero point for the values in [low, high] (scalars, or of the scale's shape)."""
        scale, zero_point = scale_and_zero_point(self.spec, low.detach(), high.detach())
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def fit(self, x: Tensor) -> None:
        """Set the range to the smallest and largest of the values of ``x`` that share a scale.

        A learned step starts where the squared error is least.
        """
        if self.spec.learned:
            self.fit_least_error(x)
        else:
            values = by_scale(self.spec, x.detach())
            self.set_range(values.amin(-1), values.amax(-1))

    def fit_least_error(self, x: Tensor) -> None:
        """Set the range to that which rounds the values of ``x`` that share a scale with the least squared error."""
        self.set_range(*least_error_range(self.spec, by_scale(self.spec, x.detach())))

    def steps(self) -> Tensor:
        """Return the scales in use: a learned one may cross zero, and then its size counts."""
        return self.scale.abs().clamp(min=TINY) if self.spec.learned else self.scale

    def forward(self, x: Tensor) -> Tensor:
        if self.spec.smooth:
            x = x * self.factor
        if self.observer is not None:
            self.observer.see(x.detach())
            return x
        if _exporting.get():
            return self._symbolic(x)
        if self.spec.dynamic:
            ends = (end.detach() for end in torch.aminmax(x))
            return fake_quantize(self.spec, x, *scale_and_zero_point(self.spec, *ends))
        scale = self.steps()
        if self.spec.learned:
            sharing = x[0].numel() if self.spec.axis is None else x.numel() // scale.numel()
            scale = gradient_scaled(scale, (sharing * self.spec.qmax) ** -0.5)
        return fake_quantize(self.spec, x, scale, self.zero_point)

    def _symbolic(self, x: Tensor) -> Tensor:
        """Place QuantizeLinear → DequantizeLinear in the graph being exported, for ``export.qdq`` to make valid.

        The attributes qmin and qmax (the grid is narrower than its integer type) and bits are ours. ``settle`` comes
        before. A 16-bit float is a node of our own, for ``export.floats``, and so is a dynamic range, for
        ``export.dynamic``.
        """
        spec = self.spec
        if spec.dynamic:
            return torch.onnx.ops.symbolic("slimline::DynamicQuantize", (x,), dtype=x.dtype, shape=x.shape, version=1)
        if spec.is_float:
            return torch.onnx.ops.symbolic(f"slimline::{spec.scheme}", (x,), dtype=x.dtype, shape=x.shape, version=1)
        attributes: dict[str, Any] = {} if spec.axis is None else {"axis": spec.axis}
        if spec.block is not None:
            attributes |= {"axis": 1, "block_size": spec.block}
        if spec.bits not in NATIVE or spec.block is not None:
            attributes |= {"bits": spec.bits, "qmin": spec.qmin, "qmax": spec.qmax}
        scale, zero_point, dtype = self.scale, self.zero_point, self.zero_point.dtype
        q = torch.onnx.ops.symbolic("QuantizeLinear", (x, scale, zero_point), attributes, dtype=dtype, shape=x.shape)
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (q, scale, zero_point), attributes, dtype=torch.float32, shape=x.shape
        )

    def extra_repr(self) -> str:
        block = f", block={self.spec.block}" if self.spec.block else ""
        return f"{self.spec.scheme} {self.spec.bits} bits, axis={self.spec.axis}{block}"


def learned_scales(model: nn.Module) -> list[nn.Parameter]:
    """Return the scales that are trained."""
    found = (quantizer.scale for quantizer in quantizers(model).values())
    return [scale for scale in found if isinstance(scale, nn.Parameter)]


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Make scales and zero points, new tensors, the constants that an exported model holds.

    A learned scale, whose sign is free, becomes the step in use; zero points get their grid's integer type.
    """
    for quantizer in quantizers(model).values():
        quantizer.scale.data = quantizer.steps().clone()
        signed = quantizer.spec.scheme == "symmetric"
        narrow, wide = (torch.int8, torch.int16) if signed else (torch.uint8, torch.uint16)
        quantizer.zero_point = quantizer.zero_point.to(narrow if quantizer.spec.bits <= 8 else wide)


@contextmanager
def exporting() -> Iterator[None]:
    """While this is open, quantizers place ONNX nodes instead of rounding."""
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


class _Weighted(nn.Module):
    """A layer with a weight quantizer: while training, the weight's range is that of the current weight.

    A learned step is left to the optimizer.
    """

    weight: Tensor
    weight_quantizer: Quantizer
    _stale = False

    def quantized_weight(self) -> Tensor:
        if self.training and not self.weight_quantizer.spec.learned:
            self.weight_quantizer.fit(self.weight)
            self._stale = True
        return cast(Tensor, self.weight_quantizer(self.weight))

    def train(self, mode: bool = True) -> _Weighted:
        if not mode and self._stale:
            self.weight_quantizer.fit(self.weight)
            self._stale = False
        return super().train(mode)


class QuantizedConv2d(_Weighted, nn.Conv2d):
    """Conv2d whose weight is fake-quantized, and its input (per tensor) unless that stays in floating point."""

    input_quantizer: Quantizer | nn.Identity

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        x = self.input_quantizer(input)
        return F.conv2d(x, self.quantized_weight(), self.bias, self.stride, self.padding, self.dilation, self.groups)


class QuantizedLinear(_Weighted, nn.Linear):
    """Linear whose weight is fake-quantized, and its input (per tensor) unless that stays in floating point."""

    input_quantizer: Quantizer | nn.Identity

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.linear(self.input_quantizer(input), self.quantized_weight(), self.bias)


class QuantizedEmbedding(_Weighted, nn.Embedding):
    """Embedding whose table has a scale for each row, so that only the rows looked up are rounded."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if _exporting.get():
            return F.embedding(input, self.quantized_weight(), self.padding_idx)
        rows = F.embedding(input, self.weight, self.padding_idx)
        spec = self.weight_quantizer.spec
        if self.training:  # a row's range is its own, which spares a pass over the whole table
            low, high = rows.detach().amin(-1, keepdim=True), rows.detach().amax(-1, keepdim=True)
            step, _ = scale_and_zero_point(spec, low, high)
            self._stale = True
        else:
            step = self.weight_quantizer.steps()[input].unsqueeze(-1)
        integers = torch.clamp(rows / step, spec.qmin, spec.qmax)
        return (integers + (integers.round() - integers).detach()) * step


class QuantizedAdd(Add):
    """A residual sum both of whose inputs are fake-quantized, so that an integer Add can run."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList([Quantizer(spec), Quantizer(spec)])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(self.quantizers[0](a), self.quantizers[1](b))


class QuantizedAdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """Average pooling whose input is fake-quantized: the sum before it can then stay in integers."""

    input_quantizer: Quantizer

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(self.input_quantizer(input))


def is_quantizable(module: nn.Module) -> bool:
    """Return whether ``quantize_layer`` takes this layer (and it isn't quantized yet)."""
    if type(module) is nn.Embedding:
        return module.max_norm is None
    plain = type(module) in {nn.Conv2d, nn.Linear, Add, nn.AdaptiveAvgPool2d}
    return plain and not (isinstance(module, nn.Conv2d) and module.padding_mode != "zeros")


def is_quantized(model: nn.Module) -> bool:
    """Return whether any quantizer stands in ``model``."""
    return any(isinstance(module, Quantizer) for module in model.modules())


def quantize_layer(module: nn.Module, weight: Spec, activation: Spec | None) -> nn.Module:
    """Return ``module`` with quantizers of these specs; its parameters are shared, the quantizers' ranges unset.

    ``activation`` None leaves activations in floating point; a layer without weights then stays as it is. The inputs of
    an embedding are no numbers.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        quantized = _recast(module, QuantizedConv2d if isinstance(module, nn.Conv2d) else QuantizedLinear)
        quantized.weight_quantizer = weight_quantizer(weight, module.weight)
        quantized.input_quantizer = (
            nn.Identity() if activation is None else Quantizer(activation, module.weight.shape[1])
        )
        return cast(nn.Module, quantized)
    if isinstance(module, nn.Embedding):
        table = _recast(module, QuantizedEmbedding)
        table.weight_quantizer = weight_quantizer(weight, module.weight)
        return cast(nn.Module, table)
    if isinstance(module, Add | nn.AdaptiveAvgPool2d) and activation is None:
        return module
    if isinstance(module, Add) and activation is not None:
        return QuantizedAdd(activation).train(module.training)
    if isinstance(module, nn.AdaptiveAvgPool2d) and activation is not None:
        pool = _recast(module, QuantizedAdaptiveAvgPool2d)
        pool.input_quantizer = Quantizer(activation)
        return cast(nn.Module, pool)
    raise MethodError(f"a layer of type {type(module).__name__} can't be quantized")


def has_integer_kernel(layer: QuantizedConv2d | QuantizedLinear) -> bool:
    """Return whether a runtime for 8-bit integers multiplies this layer's weights and inputs as such."""
    weight, activation = layer.weight_quantizer.spec, layer.input_quantizer
    whole = isinstance(activation, Quantizer) and activation.spec.bits <= 8
    return whole and container(weight.bits) == 8 and weight.block is None


def weight_quantizer(spec: Spec, weight: Tensor) -> Quantizer:
    """Return a quantizer for ``weight`` [out, in, …], its range unset."""
    return Quantizer(spec, *((weight.shape[0], scale_shape(spec, weight.shape)[1:]) if spec.axis is not None else ()))


def plain_layer(module: nn.Module) -> nn.Module:
    """Return a quantized layer without its quantizers (other layers as they are); parameters are shared.

    Only the weight of one whose input is smoothed is new: it takes the factor back.
    """
    if isinstance(module, QuantizedAdd):
        return Add()
    for quantized, plain in (
        (QuantizedConv2d, nn.Conv2d),
        (QuantizedLinear, nn.Linear),
        (QuantizedEmbedding, nn.Embedding),
        (QuantizedAdaptiveAvgPool2d, nn.AdaptiveAvgPool2d),
    ):
        if isinstance(module, quantized):
            layer = _recast(module, plain)
            if (factor := smoothing_factor(module)) is not None:
                weight = module.get_parameter("weight")
                layer.weight = nn.Parameter(weight.detach() * factor, requires_grad=weight.requires_grad)
            for name in ("weight_quantizer", "input_quantizer"):
                layer._modules.pop(name, None)  # noqa: SLF001
            return cast(nn.Module, layer)
    return module


def smoothing_factor(layer: nn.Module) -> Tensor | None:
    """Return what a layer's input channels are multiplied by before they are rounded [in], or None."""
    own = layer._modules.get("input_quantizer")  # noqa: SLF001
    return own.factor if isinstance(own, Quantizer) and own.spec.smooth else None


def _recast(module: nn.Module, kind: type[nn.Module]) -> Any:
    """Return a shallow copy of ``module`` as another class of the same layout: same hyper-parameters and tensors."""
    new = kind.__new__(kind)
    new.__dict__.update(module.__dict__)
    for registry in ("_parameters", "_buffers", "_modules"):
        setattr(new, registry, dict(getattr(module, registry)))
    return new


def plain(model: nn.Module, *, share: bool = False) -> nn.Module:
    """Return a deep copy of ``model`` without any quantizer, for tracers that can't see through them.

    With ``share`` it has the model's own numbers (``layers.sharing``).
    """
    duplicate = sharing(model) if share else copy.deepcopy(model)
    layers = {name: (plain_layer(module), module) for name, module in duplicate.named_modules() if name}
    replace(duplicate, {name: new for name, (new, old) in layers.items() if new is not old})
    return duplicate


def replace(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put ``layers`` at their dotted names in ``model``."""
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent) if parent else model, leaf, layer)


def quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Return every quantizer by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}
