"""What the quantize methods share: their keys, folding BatchNorm, placing quantizers, calibration, and what makes up
for the rounding. They differ in their schemes.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from slimline import mixed_precision, quantization_costs, smoothing
from slimline.calibration import calibrate
from slimline.equalization import equalize
from slimline.errors import MethodError
from slimline.folding import batchnorm_pairs, fold_weights, rest, without_norms
from slimline.grids import Scheme, Spec, container, spec_data, spec_of
from slimline.layers import sharing
from slimline.method import Alone, Batches, Context, Edit, Method, Plan, load_tensors
from slimline.mixed_precision import Budget
from slimline.observers import Entropy, MinMax, MovingAverage, Observer, Percentile, SquaredError
from slimline.quantizers import (
    QuantizedConv2d,
    QuantizedEmbedding,
    QuantizedLinear,
    Quantizer,
    is_quantizable,
    is_quantized,
    plain,
    plain_layer,
    quantize_layer,
    quantizers,
)
from slimline.quantizers import replace as put
from slimline.reconstruction import reconstruct
from slimline.task import call

Bits = Annotated[int, Field(ge=2, le=16)]
ActivationBits = Bits | Literal[32]
Granularity = Literal["tensor", "channel", "block"]
Rounding = Literal["nearest", "adaround"]
Calibrator = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
Block = Annotated[int, Field(ge=2)]
Percent = Annotated[float, Field(gt=50, le=100)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
UNTIL_FLOAT = 32
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
class Quantize(Method):
    """The keys of a quantize method. A subclass gives its name and schemes.

    ``bits`` is for weights and activations; ``weight_bits`` and ``activation_bits`` for one of them, and
    ``activation_bits: 32`` leaves activations in floating point. Scales lie per output channel (affine weights: per
    tensor), or as ``granularity`` says; a ``block`` is so many weights along the input axis. ``skip`` are globs of
    layers left as they are, ``layers`` has other keys for those that a glob names (a later one wins).

    ``bits: auto`` gives each layer's weights one of ``choices`` (32: the layer stays in floating point) so that the
    ``budget`` is kept; ``skip: auto`` leaves layers in floating point that don't pay, or that alone raise the
    validation loss by more than ``max_loss``. Both are chosen by measurement (``slimline.mixed_precision``).

    ``learned_steps``: recovery trains the scales too (LSQ). ``equalize``: neighbouring layers share out their ranges
    first. ``smooth`` (0 to 1): so much of what makes inputs of linear layers hard to round moves into their weights
    (``slimline.smoothing``). ``rounding: adaround`` chooses for each weight of up and down in ``rounding_steps``
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
        return None if bits == UNTIL_FLOAT else Spec(bits, scheme, learned=self.learned_steps)

    @property
    def _bits(self) -> int:
        return WIDTH if self.bits == "auto" else self.bits

    def at_widths(self, widths: Mapping[str, int]) -> Quantize:
        """Return this method without ``auto``: the named layers' weights have these widths, at 32 they are skipped."""
        kept = [] if self.skip == "auto" else self.skip
        floats = [name for name, bits in widths.items() if bits == UNTIL_FLOAT]
        own = {name: Override(weight_bits=bits) for name, bits in widths.items() if bits != UNTIL_FLOAT}
        return replace(self, bits=self._bits, skip=[*kept, *floats], layers={**self.layers, **own}, budget=None)

    def check(self, where: str) -> None:
        mixed_precision.check(self, where)
        if self.smooth is not None and (self.activation_bits or self.bits) == UNTIL_FLOAT:
            raise MethodError(f"{where}.smooth: activation_bits: 32 leaves inputs unrounded, so nothing is to be moved")

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        return quantization_costs.alone(self, model, batches, context)

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

    def for_layer(self, name: str) -> Quantize:
        """Return this method with the keys that ``layers`` has for the layer ``name``."""
        chosen = self
        for pattern, override in self.layers.items():
            if fnmatchcase(name, pattern):
                given = {key: value for key, value in asdict(override).items() if value is not None}
                own = {"weight_bits": None, "activation_bits": None} if "bits" in given else {}
                chosen = replace(chosen, **own | given)
        return chosen

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        """Check that the globs of ``skip`` and ``layers`` name layers, those of ``layers`` some not skipped, and that
        ``smooth`` finds something to move.
        """
        bare = _bare(model)
        names = [name for name, layer in bare.items() if is_quantizable(layer)]
        left = self._chosen(names, context)
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in left):
                raise MethodError(
                    f"{context.where}.layers: {pattern!r} names only layers that skip leaves out; layers that are "
                    f"left: {', '.join(left)}"
                )
        if self.smooth is not None:
            rounded = [name for name in left if self.for_layer(name).activation_spec(bare[name]) is not None]
            if not self._moves(model, next(iter(batches()))[0], rounded):
                raise MethodError(
                    f"{context.where}.smooth: nothing to move: none of the Linear layers whose inputs are rounded "
                    "stands behind a LayerNorm or behind attention; leave smooth out"
                )

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        del context
        return without_norms(model, next(iter(batches()))[0])

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        """Fold every BatchNorm that directly follows a convolution, quantize every layer not in ``skip``, calibrate.

        Equalization comes before the quantizers, reconstruction after the calibration.
        A model that carries quantizers already gets new specs and ranges; its structure stays.
        """
        self.check(context.where)
        inputs, _ = next(iter(batches()))
        if "auto" in (self.bits, self.skip):
            method, notes = mixed_precision.resolve(self, model, batches, context)
            plan = method.plan(model, batches, context)
            return replace(plan, notes=[*plan.notes, *notes])
        folds = [] if is_quantized(model) else batchnorm_pairs(model, inputs)
        bare = _bare(model)
        layers = self._chosen([name for name, module in bare.items() if is_quantizable(module)], context)
        own = {name: self.for_layer(name) for name in layers}
        specs = {name: (each.weight_spec(bare[name]), each.activation_spec(bare[name])) for name, each in own.items()}
        moves = self._moves(model, inputs, [name for name, (_, inner) in specs.items() if inner is not None])
        for move in moves:
            for name in () if move.folded else move.readers:
                weight, activation = specs[name]
                specs[name] = weight, activation and replace(activation, smooth=True)
        data = {"fold": [list(pair) for pair in folds], "layers": layers, **self._specs(specs)}
        if self.bias_correction:
            data["bias"] = [
                name for name in layers if getattr(bare[name], "bias", 0) is None and name not in dict(folds)
            ]
        edit = Edit(self.name, data)
        writes = folds or quantizers(model) or self._moves_weights(own)  # into tensors that the model has
        quantized = copy.deepcopy(model) if writes else sharing(model)
        fold_weights(quantized, folds)
        quantized = self.apply(quantized, edit)
        notes = [f"{len(folds)} BatchNorms folded, {len(layers)} layers quantized"]
        notes += self._equalize(quantized, inputs, layers, context)
        notes += self._smooth(quantized, moves, batches, layers, context)

        def run() -> None:
            for rows, _ in batches():
                call(quantized, rows)

        try:
            _calibrate(quantized, run, own)
            notes += self._reconstruct(quantized, batches, own, context)
        except MethodError as error:
            raise MethodError(f"{context.where}: {error}") from error
        # the quantizers that apply makes are new and unset, even where ranges stay
        applied = self.apply(sharing(model), edit).state_dict()
        changed = {
            name: tensor for name, tensor in quantized.state_dict().items() if not torch.equal(applied[name], tensor)
        }
        return Plan(edit, changed, notes + storage_notes({name: (bare[name], *spec) for name, spec in specs.items()}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        """Remove the folded BatchNorms, give their convolutions a bias, and put quantizers on the listed layers."""
        data: dict[str, Any] = edit.data
        for conv_name, norm_name in data["fold"]:
            conv = cast(nn.Conv2d, model.get_submodule(conv_name))
            if conv.bias is None:
                conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
            put(model, {norm_name: rest(model.get_submodule(norm_name))})
        for name in data.get("bias", []):
            unbiased = model.get_submodule(name)
            unbiased.bias = nn.Parameter(torch.zeros(len(unbiased.get_parameter("weight"))))
        for name in data["layers"]:
            spec = {**data, **data.get("own", {}).get(name, {})}
            activation = spec_of(spec["activation"]) if spec["activation"] else None
            layer = plain_layer(model.get_submodule(name))
            if activation is None and not isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
                continue
            put(model, {name: quantize_layer(layer, spec_of(spec["weight"]), activation)})
        return model

    def _equalize(
        self, quantized: nn.Module, inputs: dict[str, Tensor], layers: list[str], context: Context
    ) -> list[str]:
        """Equalize the chosen layers of a model whose quantizers have no ranges yet; those of others would be wrong."""
        if not self.equalize:
            return []
        if kept := _kept(quantized, layers):
            raise MethodError(
                f"{context.where}.equalize: {kept[0]} keeps the ranges of an earlier quantization, which "
                "equalizing would make wrong; quantize it too, or equalize the first time"
            )
        bare = plain(quantized)
        notes = equalize(bare, inputs, layers)
        load_tensors(quantized, bare.state_dict())
        return notes

    def _moves_weights(self, own: Mapping[str, Quantize]) -> bool:
        """Return whether weights themselves change before or after they get ranges."""
        rounded = any(each.rounding == "adaround" for each in own.values())
        return self.equalize or self.smooth is not None or self.bias_correction or rounded

    def _moves(self, model: nn.Module, inputs: dict[str, Tensor], rounded: Iterable[str]) -> list[smoothing.Move]:
        """Return where outliers can move, among the layers ``rounded``, whose inputs are."""
        if self.smooth is None:
            return []
        return smoothing.find_moves(plain(model, share=True), inputs, rounded)

    def _smooth(
        self, quantized: nn.Module, moves: list[smoothing.Move], batches: Batches, layers: list[str], context: Context
    ) -> list[str]:
        """Move outliers of the inputs of the chosen layers, whose quantizers have no ranges yet, into their weights.

        A layer that keeps the factor of an earlier smoothing keeps the weight that goes with it.
        """
        if self.smooth is None:
            return []
        bare = plain(quantized, share=True)
        try:
            factors = smoothing.smooth(bare, moves, self.smooth, batches)
        except MethodError as error:
            raise MethodError(f"{context.where}.{error}") from error
        kept = _kept(quantized, layers)
        load_tensors(
            quantized, {name: each for name, each in bare.state_dict().items() if name.rpartition(".")[0] not in kept}
        )
        for name, factor in factors.items():
            cast(Quantizer, quantized.get_submodule(f"{name}.input_quantizer")).factor.copy_(factor)
        return [smoothing.note(moves)]

    def _reconstruct(
        self, quantized: nn.Module, batches: Batches, own: Mapping[str, Quantize], context: Context
    ) -> list[str]:
        """Round weights and correct biases as asked; weights that AdaRound takes get the grid of least error first."""
        weighted = [
            name for name in own if isinstance(quantized.get_submodule(name), QuantizedConv2d | QuantizedLinear)
        ]
        rounded = {name: own[name].rounding_steps for name in weighted if own[name].rounding == "adaround"}
        if not rounded and not self.bias_correction:
            return []
        for name in rounded:
            layer = cast(QuantizedConv2d | QuantizedLinear, quantized.get_submodule(name))
            layer.weight_quantizer.fit_least_error(layer.weight)
        corrected = weighted if self.bias_correction else []
        return reconstruct(
            quantized.eval(), plain(quantized).eval(), batches, rounded=rounded, corrected=corrected, seed=context.seed
        )

    def _chosen(self, names: list[str], context: Context) -> list[str]:
        """Return the layers that aren't skipped. A glob that matches nothing is an error, so that no typo passes."""
        skip = [] if self.skip == "auto" else self.skip
        for key, patterns in (("skip", skip), ("layers", self.layers)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    found = ", ".join(names)
                    raise MethodError(f"{context.where}.{key}: {pattern!r} matches no layer; layers: {found}")
        left = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in skip)]
        if not left:
            raise MethodError(f"{context.where}: no layer is left to quantize")
        return left

    def _specs(self, specs: dict[str, tuple[Spec, Spec | None]]) -> dict[str, Any]:
        """Return the edit's specs: one of weights and one of activations, and the layers that have their own."""

        def data(weight: Spec, activation: Spec | None) -> dict[str, Any]:
            return {"weight": spec_data(weight), "activation": spec_data(activation) if activation else None}

        common = data(self.weight_spec(), self.activation_spec())
        own = {name: each for name, spec in specs.items() if (each := data(*spec)) != common}
        return common | ({"own": own} if own else {})


def _bare(model: nn.Module) -> dict[str, nn.Module]:
    """Return every layer by name, without quantizers."""
    return {name: plain_layer(module) for name, module in model.named_modules() if name}


def _layer_of(quantizer: str) -> str:
    """Return the name of the layer that carries a quantizer of this name."""
    return quantizer.rpartition(".")[0].removesuffix(".quantizers")


def _kept(model: nn.Module, layers: Iterable[str]) -> list[str]:
    """Return the layers beside ``layers`` that keep the quantizers of an earlier quantization."""
    return list(dict.fromkeys(name for each in quantizers(model) if (name := _layer_of(each)) not in layers))


def _calibrate(model: nn.Module, run: Callable[[], None], own: dict[str, Quantize]) -> None:
    """Calibrate ``model``, the layers of each calibrator together, after all their weights have ranges."""
    for name in own:
        layer = model.get_submodule(name)
        if isinstance(layer, QuantizedConv2d | QuantizedLinear | QuantizedEmbedding):
            layer.weight_quantizer.fit(layer.weight)
    together: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, each in own.items():
        together[each.calibrator, each.percentile, each.momentum].append(name)
    for names in together.values():
        only = [each for each in quantizers(model) if _layer_of(each) in names]
        calibrate(model, run, own[names[0]].observer, only=only)


def storage_notes(layers: dict[str, tuple[nn.Module, Spec, Spec | None]]) -> list[str]:
    """Return a line for each pair of widths that ONNX Runtime has no fast kernels for, naming the layers.

    Fast are: weights of 5 to 8 bits with activations of at most 8 (integer kernels), and Linear layers with 4- or 8-bit
    weights in blocks beside float activations (MatMulNBits). All else is unpacked to floating point as it runs.
    """
    slow: dict[str, list[str]] = defaultdict(list)
    for name, (layer, weight, activation) in layers.items():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        integers = activation is not None and activation.bits <= 8 and container(weight.bits) == 8 and not weight.block
        blocks = (
            activation is None and isinstance(layer, nn.Linear) and weight.block and container(weight.bits) in {4, 8}
        )
        if not integers and not blocks:
            kept = f"{activation.bits}-bit" if activation else "float"
            slow[f"{weight.bits}-bit weights with {kept} activations"].append(name)
    return [f"storage only: {widths} run in floating point: {', '.join(names)}" for widths, names in slow.items()]
