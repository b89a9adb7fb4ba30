"""Fake-quantizers and their observers, and the layers that carry them. They stand below the methods: quantize places
them, factorize and prune keep them, export turns them into integers.

Formulas (Krishnamoorthi 2018, arXiv:1806.08342; Jacob et al. 2018, arXiv:1712.05877), b bits:

    symmetric  x_q = round(x / x_max · (2^(b−1) − 1)),            x_max = max |x|,  x_q ∈ [−(2^(b−1) − 1), 2^(b−1) − 1]
    linear     x_q = round((x − x_min) / (x_max − x_min) · (2^b − 1)),              x_q ∈ [0, 2^b − 1]

In both, x ≈ scale · (x_q − zero_point). The range is widened to hold 0, and linear's zero_point is rounded, so that 0
(padding, ReLU's floor) is exact. The gradient passes straight through inside the range and is 0 outside.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.layers import Add

Scheme = Literal["symmetric", "linear"]
_exporting: ContextVar[bool] = ContextVar("exporting", default=False)


@dataclass(frozen=True)
class Spec:
    """The structure of a quantizer: width, scheme, and the channel axis (None = one scale for the whole tensor)."""

    bits: int = 8
    scheme: Scheme = "symmetric"
    axis: int | None = None

    @property
    def qmin(self) -> int:
        return 1 - 2 ** (self.bits - 1) if self.scheme == "symmetric" else 0

    @property
    def qmax(self) -> int:
        return int(2 ** (self.bits - 1) - 1 if self.scheme == "symmetric" else 2**self.bits - 1)


def scale_and_zero_point(spec: Spec, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return (scale float32, zero_point int32) for the range [low, high], each of shape [channels] or []."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    tiny = torch.finfo(torch.float32).tiny  # below it a scale's reciprocal is infinite
    if spec.scheme == "symmetric":
        scale = torch.maximum(-low, high) / spec.qmax
        scale = torch.where(scale >= tiny, scale, torch.ones_like(scale))
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    scale = (high - low) / (spec.qmax - spec.qmin)
    scale = torch.where(scale >= tiny, scale, torch.ones_like(scale))
    return scale, (spec.qmin - torch.round(low / scale)).clamp(spec.qmin, spec.qmax).to(torch.int32)


class Observer(Protocol):
    """Sees the tensors that pass a quantizer during calibration, then names their range."""

    def see(self, x: Tensor) -> None:
        """Take in one batch of values."""

    def range(self) -> tuple[Tensor, Tensor]:
        """Return (low, high), each a scalar tensor. Raises MethodError when nothing was seen."""


class MinMax:
    """The smallest and largest value seen."""

    def __init__(self) -> None:
        self.low = torch.tensor(float("inf"))
        self.high = torch.tensor(float("-inf"))

    def see(self, x: Tensor) -> None:
        self.low = torch.minimum(self.low, x.min())
        self.high = torch.maximum(self.high, x.max())

    def range(self) -> tuple[Tensor, Tensor]:
        if self.low > self.high:
            raise MethodError("calibration saw no data")
        return self.low, self.high


class Percentile:
    """The quantiles (100 − p)% and p% of the values: the mean over batches of each batch's own quantiles.

    Clipping the rarest values gives all others a finer step (Wu et al. 2020, arXiv:2004.09602, section 3.4).
    """

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile
        self.lows: list[Tensor] = []
        self.highs: list[Tensor] = []

    def see(self, x: Tensor) -> None:
        values = x.flatten()
        rank = max(1, round(values.numel() * (1 - self.percentile / 100)))
        self.highs.append(values.topk(rank).values[-1])
        self.lows.append(values.topk(rank, largest=False).values[-1])

    def range(self) -> tuple[Tensor, Tensor]:
        if not self.lows:
            raise MethodError("calibration saw no data")
        return torch.stack(self.lows).mean(), torch.stack(self.highs).mean()


class Quantizer(nn.Module):
    """Rounds a tensor to the grid of its spec. ``scale`` and ``zero_point`` are its whole state."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, spec: Spec, channels: int | None = None) -> None:
        super().__init__()
        shape = () if spec.axis is None else (channels or 1,)
        self.spec = spec
        self.observer: Observer | None = None
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Set scale and zero point for the values in [low, high] ([channels] or scalars)."""
        scale, zero_point = scale_and_zero_point(self.spec, low.detach(), high.detach())
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def fit(self, x: Tensor) -> None:
        """Set the range to the smallest and largest value of ``x``, per channel where the spec has an axis."""
        x = x.detach()
        if self.spec.axis is None:
            self.set_range(x.min(), x.max())
        else:
            rows = x.movedim(self.spec.axis, 0).flatten(1)
            self.set_range(rows.amin(1), rows.amax(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.observer is not None:
            self.observer.see(x.detach())
            return x
        if _exporting.get():
            return self._symbolic(x)
        spec = self.spec
        if spec.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, spec.qmin, spec.qmax)
        return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero_point, spec.axis, spec.qmin, spec.qmax)

    def _symbolic(self, x: Tensor) -> Tensor:
        """Place QuantizeLinear → DequantizeLinear in the graph being exported."""
        dtype = torch.int8 if self.spec.scheme == "symmetric" else torch.uint8
        attributes: dict[str, Any] = {} if self.spec.axis is None else {"axis": self.spec.axis}
        zero_point = self.zero_point.to(dtype)
        q = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, self.scale, zero_point), attributes, dtype=dtype, shape=x.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (q, self.scale, zero_point), attributes, dtype=torch.float32, shape=x.shape
        )

    def extra_repr(self) -> str:
        return f"{self.spec.scheme} {self.spec.bits} bits, axis={self.spec.axis}"


@contextmanager
def exporting() -> Iterator[None]:
    """While this is open, quantizers place ONNX nodes instead of rounding."""
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


class _Weighted(nn.Module):
    """A layer with a weight quantizer: while training, the weight's range is that of the current weight."""

    weight: Tensor
    weight_quantizer: Quantizer
    _stale = False

    def quantized_weight(self) -> Tensor:
        if self.training:
            self.weight_quantizer.fit(self.weight)
            self._stale = True
        return cast(Tensor, self.weight_quantizer(self.weight))

    def train(self, mode: bool = True) -> _Weighted:
        if not mode and self._stale:
            self.weight_quantizer.fit(self.weight)
            self._stale = False
        return super().train(mode)


class QuantizedConv2d(_Weighted, nn.Conv2d):
    """Conv2d whose input (per tensor) and weight (per output channel) are fake-quantized."""

    input_quantizer: Quantizer

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        x = self.input_quantizer(input)
        return F.conv2d(x, self.quantized_weight(), self.bias, self.stride, self.padding, self.dilation, self.groups)


class QuantizedLinear(_Weighted, nn.Linear):
    """Linear whose input (per tensor) and weight (per output feature) are fake-quantized."""

    input_quantizer: Quantizer

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.linear(self.input_quantizer(input), self.quantized_weight(), self.bias)


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
    plain = type(module) in {nn.Conv2d, nn.Linear, Add, nn.AdaptiveAvgPool2d}
    return plain and not (isinstance(module, nn.Conv2d) and module.padding_mode != "zeros")


def is_quantized(model: nn.Module) -> bool:
    """Return whether any quantizer stands in ``model``."""
    return any(isinstance(module, Quantizer) for module in model.modules())


def quantize_layer(module: nn.Module, weight: Spec, activation: Spec) -> nn.Module:
    """Return ``module`` with quantizers of these specs; its parameters are shared, the quantizers' ranges unset."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        quantized = _recast(module, QuantizedConv2d if isinstance(module, nn.Conv2d) else QuantizedLinear)
        quantized.weight_quantizer = Quantizer(weight, module.weight.shape[0])
        quantized.input_quantizer = Quantizer(activation)
        return cast(nn.Module, quantized)
    if isinstance(module, Add):
        return QuantizedAdd(activation).train(module.training)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        pool = _recast(module, QuantizedAdaptiveAvgPool2d)
        pool.input_quantizer = Quantizer(activation)
        return cast(nn.Module, pool)
    raise MethodError(f"a layer of type {type(module).__name__} can't be quantized")


def plain_layer(module: nn.Module) -> nn.Module:
    """Return a quantized layer without its quantizers (other layers as they are); parameters are shared."""
    if isinstance(module, QuantizedAdd):
        return Add()
    for quantized, plain in (
        (QuantizedConv2d, nn.Conv2d),
        (QuantizedLinear, nn.Linear),
        (QuantizedAdaptiveAvgPool2d, nn.AdaptiveAvgPool2d),
    ):
        if isinstance(module, quantized):
            layer = _recast(module, plain)
            for name in ("weight_quantizer", "input_quantizer"):
                layer._modules.pop(name, None)  # noqa: SLF001
            return cast(nn.Module, layer)
    return module


def _recast(module: nn.Module, kind: type[nn.Module]) -> Any:
    """Return a shallow copy of ``module`` as another class of the same layout: same hyper-parameters and tensors."""
    new = kind.__new__(kind)
    new.__dict__.update(module.__dict__)
    for registry in ("_parameters", "_buffers", "_modules"):
        setattr(new, registry, dict(getattr(module, registry)))
    return new


def plain(model: nn.Module) -> nn.Module:
    """Return a deep copy of ``model`` without any quantizer, for tracers that can't see through them."""
    duplicate = copy.deepcopy(model)
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


@torch.no_grad()
def calibrate(
    model: nn.Module,
    run: Callable[[], None],
    observer: Callable[[], Observer],
    only: Iterable[str] | None = None,
) -> None:
    """Set activation quantizers' ranges by ``observer`` while ``run`` feeds data, and weights' by their extremes.

    All quantizers pass values through unrounded meanwhile. ``only`` limits the calibration to quantizers of these
    names. Raises MethodError naming the quantizer that saw nothing.
    """
    chosen = quantizers(model)
    weights = {name for name in chosen if name.rpartition(".")[2] == "weight_quantizer"}
    wanted = set(chosen) if only is None else set(only)
    for name in wanted & weights:
        layer = model.get_submodule(name.rpartition(".")[0])
        chosen[name].fit(cast(Tensor, layer.weight))
    activations = {name: chosen[name] for name in chosen if name not in weights}
    for quantizer in activations.values():
        quantizer.observer = observer()
    was_training = model.training
    model.eval()
    try:
        run()
        for name in wanted - weights:
            seen = activations[name].observer
            assert seen is not None  # noqa: S101  (set above)
            try:
                low, high = seen.range()
            except MethodError as error:
                raise MethodError(f"layer {name.rpartition('.')[0]}: {error}; is it reached in forward()?") from error
            activations[name].set_range(low, high)
    finally:
        for quantizer in activations.values():
            quantizer.observer = None
        model.train(was_training)


def spec_of(document: Mapping[str, Any]) -> Spec:
    """Return the Spec that an edit's JSON holds."""
    return Spec(**document)


def spec_data(spec: Spec) -> dict[str, Any]:
    """Return a Spec as JSON data."""
    return asdict(spec)
