"""The keys of a quantize method and what they say of each layer: widths, grids, calibrator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field
from torch import nn

from slimline.errors import MethodError
from slimline.layers import not_named
from slimline.method import Method
from slimline.quantization import mixed_precision
from slimline.quantization.grids import FLOAT, Scheme, Spec, spec_data
from slimline.quantization.mixed_precision import Budget
from slimline.quantization.observers import Entropy, MinMax, MovingAverage, Observer, Percentile, SquaredError

Bits = Annotated[int, Field(ge=2, le=16)]
ActivationBits = Bits | Literal[32]
Granularity = Literal["tensor", "channel", "block"]
Rounding = Literal["nearest", "adaround"]
Calibrator = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
Block = Annotated[int, Field(ge=2)]
Percent = Annotated[float, Field(gt=50, le=100)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
EMBEDDING_BITS = 8  # a runtime looks up rows of 8-bit integers, a scale each
WIDTH = 8  # of what ``bits: auto`` doesn't choose


@dataclass(frozen=True)
class Override:
    """The keys that may differ from layer to layer; ``bits`` here wins over the method's own three."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    bits: Bits | None = None
    weight_bits: Bits | None = None
    activation_bits: ActivationBits | None = None
    granularity: Granularity | None = None
    block: Block | None = None
    calibrator: Calibrator | None = None
    percentile: Percent | None = None
    momentum: Momentum | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True)
class QuantizeKeys(Method):
    """The keys of a quantize method. A subclass gives its name and schemes.

    ``bits`` is for weights and activations; ``weight_bits`` and ``activation_bits`` for one of them, and
    ``activation_bits: 32`` leaves activations in floating point. Scales lie per output channel (affine weights: per
    tensor), or as ``granularity`` says; a ``block`` is so many weights along the input axis. ``skip`` are globs of
    layers left as they are, ``layers`` has other keys for those that a glob names (a later one wins).

    ``bits: auto`` gives each layer's weights one of ``choices`` (32: the layer stays in floating point) so that the
    ``budget`` is kept; ``skip: auto`` leaves layers in floating point that don't pay, or that alone raise the
    validation loss by more than ``max_loss``. Both are chosen by measurement (``mixed_precision.py``).

    ``learned_steps``: recovery trains the scales too (LSQ). ``equalize``: neighbouring layers share out their ranges
    first. ``smooth`` (0 to 1): so much of what makes inputs of linear layers hard to round moves into their weights
    (``smoothing.py``). ``rounding: adaround`` chooses for each weight of up and down in ``rounding_steps``
    iterations a layer; ``bias_correction`` takes the mean shift of each output channel off its bias.
    """

    bits: Bits | Literal["auto"] = 8
    weight_bits: Bits | None = None
    activation_bits: ActivationBits | None = None
    granularity: Granularity | None = None
    block: Block = 32
    calibrator: Calibrator = "minmax"
    percentile: Percent = 99.99
    momentum: Momentum = 0.9
    learned_steps: bool = False
    equalize: bool = False
    smooth: Annotated[float, Field(ge=0, le=1)] | None = None
    rounding: Rounding = "nearest"
    rounding_steps: Annotated[int, Field(ge=1)] = 1000
    bias_correction: bool = False
    skip: list[str] | Literal["auto"] = field(default_factory=list)
    layers: dict[str, Override] = field(default_factory=dict)
    choices: list[Bits | Literal[32]] = field(default_factory=lambda: [4, 8])
    budget: Budget | None = None
    max_loss: Annotated[float, Field(ge=0)] = 0.01

    name: ClassVar[str]

    def schemes(self) -> tuple[Scheme, Scheme]:
        """Return the schemes of weights and of activations."""
        raise NotImplementedError

    def weight_spec(self, layer: nn.Module | None = None) -> Spec:
        """Return the weights' Spec; a layer with no more inputs than a block has room for gets scales per channel."""
        if isinstance(layer, nn.Embedding):
            return Spec(EMBEDDING_BITS, "symmetric", axis=0)
        scheme, _ = self.schemes()
        granularity = self.granularity or ("channel" if scheme == "symmetric" else "tensor")
        if granularity == "block" and isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[1] <= self.block:
            granularity = "channel"
        return Spec(
            self.weight_bits or self._bits,
            scheme,
            axis=None if granularity == "tensor" else 0,
            block=self.block if granularity == "block" else None,
            learned=self.learned_steps,
        )

    def activation_spec(self, layer: nn.Module | None = None) -> Spec | None:
        """Return the Spec of a layer's inputs, None where they stay in floating point, or are indices."""
        if isinstance(layer, nn.Embedding):
            return None
        _, scheme = self.schemes()
        bits = self.activation_bits or self._bits
        return None if bits == FLOAT else Spec(bits, scheme, learned=self.learned_steps)

    @property
    def _bits(self) -> int:
        return WIDTH if self.bits == "auto" else self.bits

    def at_widths(self, widths: Mapping[str, int]) -> Self:
        """Return this method without ``auto``: the named layers' weights have these widths, at 32 they are skipped."""
        kept = [] if self.skip == "auto" else self.skip
        floats = [name for name, bits in widths.items() if bits == FLOAT]
        own = {name: Override(weight_bits=bits) for name, bits in widths.items() if bits != FLOAT}
        return replace(self, bits=self._bits, skip=[*kept, *floats], layers={**self.layers, **own}, budget=None)

    def check(self, where: str) -> None:
        mixed_precision.check(self, where)
        if self.smooth is not None and (self.activation_bits or self.bits) == FLOAT:
            raise MethodError(f"{where}.smooth: activation_bits: 32 leaves inputs unrounded, so nothing is to be moved")

    def observer(self) -> Observer:
        """Return a fresh observer of the chosen calibrator."""
        makers: dict[str, Callable[[], Observer]] = {
            "minmax": MinMax,
            "moving-average": lambda: MovingAverage(self.momentum),
            "percentile": lambda: Percentile(self.percentile),
            "entropy": Entropy,
            "mse": SquaredError,
        }
        return makers[self.calibrator]()

    def for_layer(self, name: str) -> Self:
        """Return this method with the keys that ``layers`` has for the layer ``name``."""
        chosen = self
        for pattern, override in self.layers.items():
            if fnmatchcase(name, pattern):
                given = {key: value for key, value in asdict(override).items() if value is not None}
                own = {"weight_bits": None, "activation_bits": None} if "bits" in given else {}
                chosen = replace(chosen, **own | given)
        return chosen

    def chosen(self, names: list[str], where: str) -> list[str]:
        """Return the layers that aren't skipped. A glob that matches nothing is an error, so that no typo passes."""
        left = not_named(names, [] if self.skip == "auto" else self.skip, f"{where}.skip")
        not_named(names, self.layers, f"{where}.layers")
        if not left:
            raise MethodError(f"{where}: no layer is left to quantize")
        return left

    def specs_data(self, specs: dict[str, tuple[Spec, Spec | None]]) -> dict[str, Any]:
        """Return the edit's specs: one of weights and one of activations, and the layers that have their own."""

        def data(weight: Spec, activation: Spec | None) -> dict[str, Any]:
            return {"weight": spec_data(weight), "activation": spec_data(activation) if activation else None}

        common = data(self.weight_spec(), self.activation_spec())
        own = {name: each for name, spec in specs.items() if (each := data(*spec)) != common}
        return common | ({"own": own} if own else {})
