"""What the factorize methods share: their keys, and a plan.

A layer is replaced by a sequence of thinner ones (``sequences.py``). Which layers and at which ranks is asked for or
measured (``rank_choice.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.factorization import rank_choice
from slimline.factorization.ranks import Rank, Ranks
from slimline.factorization.sequences import Factors
from slimline.factorization.whitening import Covariances
from slimline.layers import not_named
from slimline.method import Alone, Batches, Context, Method, Plan
from slimline.pruning import masks
from slimline.sensitivity import Sensitivity


@dataclass(frozen=True)
class LowRank(Method):
    """The keys that all factorize methods share.

    ``rank`` is ``auto`` (measured: ``ratios`` are tried; ``min_gain``, ``max_loss`` and ``max_drop`` decide),
    ``{ratio: r}`` or ``{energy: e}``. ``whiten: false`` factorizes the bare weights; ``refit`` solves for the last
    factors once more, on what they read behind the other factorized layers (``refitting.py``). ``skip`` are globs
    of layers.
    """

    rank: Rank = "auto"
    ratios: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = field(
        default_factory=lambda: [0.125, 0.25, 0.5]
    )
    multiple: Annotated[int, Field(ge=1)] = 8
    min_gain: Annotated[float, Field(ge=1)] = 1.1
    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_loss: Annotated[float, Field(ge=0)] | None = None
    whiten: bool = True
    refit: bool = True
    skip: list[str] = field(default_factory=list)

    name: ClassVar[str]
    kinds: ClassVar[str] = "of a kind that it takes"  # after "stays: not"

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return plan(self, model, batches, context)

    def check(self, where: str) -> None:
        if self.max_loss is not None and self.rank != "auto":
            raise MethodError(f"{where}.max_loss: it guards ranks that are chosen, and rank isn't auto; leave it out")

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        del batches
        _names(self, model, context.where)

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        if self.rank == "auto":
            return {}
        factors = _factors(self, model, batches, context)
        asked = rank_choice.as_asked(factors)["layers"]
        return {name: factors.alone(name, entry["ranks"]) for name, entry in asked.items() if entry["ranks"]}

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        """Return whether the method factorizes this kind of layer."""
        raise NotImplementedError

    @staticmethod
    def spectra(layer: nn.Module, covariance: Tensor) -> list[Tensor]:
        """Return the singular values (descending) of the whitened weight, one tensor for each rank to choose."""
        raise NotImplementedError

    @staticmethod
    def structure(layer: nn.Module, ranks: Ranks) -> nn.Sequential:
        """Return the sequence of thinner layers, weights unset; the last one carries the bias."""
        raise NotImplementedError

    @staticmethod
    def weights(layer: nn.Module, ranks: Ranks, covariance: Tensor) -> list[Tensor]:
        """Return the weights of the sequence; ``covariance`` is E[x xᵀ] of the layer's input channels."""
        raise NotImplementedError


def is_dense_kernel(layer: nn.Module) -> bool:
    """Return whether a layer is a k×k convolution of all channels that pads, if at all, with zeros."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size != (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


def plan(method: LowRank, model: nn.Module, batches: Batches, context: Context) -> Plan:
    """Choose layers and ranks (or replay the recorded choice) and compute their factors."""
    method.check(context.where)
    factors = _factors(method, model, batches, context)
    study = Sensitivity(model, context)

    def guard(name: str, ranks: Ranks) -> float | None:
        if method.max_loss is None:
            return None
        return study.cost(method, name, factors.alone(name, ranks)).rise

    def decide() -> dict[str, Any]:
        if not factors.covariance:
            found: dict[str, Any] = {"layers": {}, "summary": f"no layer for {method.name}: the model stays as it is"}
        elif method.rank == "auto":
            found = rank_choice.choose(factors, context, guard)
        else:
            found = rank_choice.as_asked(factors)
        return {**found, "layers": rank_choice.every(method, model, found["layers"])}

    choice = context.decisions.choose(method.name, decide)
    notes = [f"{name}: {entry['why']}" for name, entry in choice["layers"].items()] + [choice["summary"]]
    ranks = {name: entry["ranks"] for name, entry in choice["layers"].items() if entry["ranks"]}
    lost = [name for name in ranks if masks.mask_of(model.get_submodule(name)) is not None]
    notes += [f"{name}: its mask is dropped, the factors are dense" for name in lost]
    changed, edit = factors.factorized(ranks)
    before, after = model.state_dict(), changed.state_dict()
    tensors = {
        name: tensor for name, tensor in after.items() if name not in before or before[name].shape != tensor.shape
    }
    return Plan(edit, tensors, notes)


def _factors(method: LowRank, model: nn.Module, batches: Batches, context: Context) -> Factors:
    """Return what ``method`` makes of ``model``, whitened by the covariances of its layers' inputs, or not."""
    names = _names(method, model, context.where)
    covariance = Covariances(model, names, batches, whiten=method.whiten, where=context.where)
    return Factors(method, model, covariance, batches)


def _names(method: LowRank, model: nn.Module, where: str) -> list[str]:
    """Return the layers that the method takes and ``skip`` doesn't name."""
    names = [name for name, layer in model.named_modules() if method.takes(layer)]
    return not_named(names, method.skip, f"{where}.skip", "layer that can be factorized")
