"""Whitening: weights measured where the data is, so that what is cut off is what the layer's outputs lose.

With C = E[x xᵀ] = L Lᵀ over a layer's inputs, E‖(W − Ŵ) x‖² = ‖(W − Ŵ) L‖²_F: factorizing W·L in place of W keeps what
real inputs need (Wang et al. 2024, SVD-LLM, arXiv:2403.07378).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from slimline import layer_hooks, measure
from slimline.errors import MethodError
from slimline.method import Batches
from slimline.quantization.quantizers import Quantizer

SHARE, LEAST = 0.25, 2**26  # of the model's bytes, and bytes: what covariances may take at a time


class Covariances(Mapping[str, Tensor]):
    """The covariances of the inputs of layers, as many at a time as a quarter of the model's size has room for.

    Those of a large encoder together are larger than its weights. They are found, by another run over calibration
    data, as they are asked for; so ask in order. Without ``whiten`` they are identities, and one run tells that inputs
    are finite. Keys are the layers that the first batch reaches, ``shapes`` those of their inputs without the batch.
    Asking raises MethodError where inputs aren't finite; ``where`` begins the message.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str], batches: Batches, *, whiten: bool = True, where: str = ""
    ) -> None:
        self._model, self._batches, self._whiten, self._where = model, batches, whiten, where
        inputs, _ = next(iter(batches()))
        reached = measure.input_shapes(model, names, {name: value[:1] for name, value in inputs.items()})
        self.shapes = {name: reached[name] for name in names if name in reached}
        self._channels = {
            name: shape[0 if isinstance(model.get_submodule(name), nn.Conv2d) else -1]
            for name, shape in self.shapes.items()
        }
        room = max(LEAST, SHARE * sum(each.numel() * each.element_size() for each in model.parameters()))
        self._groups: list[list[str]] = []
        taken = room
        for name, channels in self._channels.items():
            taken += (size := 8 * channels**2)
            if taken > room:
                self._groups.append([])
                taken = size
            self._groups[-1].append(name)
        self._at = {name: index for index, group in enumerate(self._groups) for name in group}
        self._known: dict[str, Tensor] = {}
        self._are_finite = False

    def __getitem__(self, name: str) -> Tensor:
        if not self._whiten:
            if not self._are_finite:
                self._refuse(wild(self._model, list(self._channels), self._batches))
                self._are_finite = True
            return torch.eye(self._channels[name], dtype=torch.float64)
        if name not in self._known:
            self._known.clear()
            self._known = covariances(self._model, self._groups[self._at[name]], self._batches)
            self._refuse([each for each, covariance in self._known.items() if not bool(covariance.isfinite().all())])
        return self._known[name]

    def _refuse(self, layers: list[str]) -> None:
        if layers:
            raise MethodError(f"{self._where}: layer {layers[0]}: calibration saw inputs that are not finite")

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)


@torch.no_grad()
def covariances(model: nn.Module, names: Sequence[str], batches: Batches) -> dict[str, Tensor]:
    """Return E[x xᵀ] [channels × channels, float64] of each named layer's input over calibration data and positions."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach().double()
        quantizer = getattr(layer, "input_quantizer", None)
        if isinstance(quantizer, Quantizer):
            x = quantizer(args[0]).double()
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        rows = x.movedim(axis, -1).flatten(0, -2)
        products = rows.T @ rows
        sums[name] = sums[name].add_(products) if name in sums else products
        counts[name] = counts.get(name, 0) + len(rows)

    layer_hooks.see_inputs(model, names, batches, see)
    return {name: sums[name].div_(counts[name]) for name in names if name in sums}


@torch.no_grad()
def wild(model: nn.Module, names: Sequence[str], batches: Batches) -> list[str]:
    """Return those of the named layers that get an input that isn't finite, in one run over calibration data."""
    found: set[str] = set()

    def see(name: str, _layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not bool(args[0].isfinite().all()):
            found.add(name)

    layer_hooks.see_inputs(model, names, batches, see)
    return [name for name in names if name in found]


def root(covariance: Tensor) -> Tensor:
    """Return L with L Lᵀ = covariance + εI: an error of W·L is the error of the layer's output."""
    damped = covariance.clone()
    damped.diagonal().add_(1e-6 * covariance.diagonal().mean().clamp(min=1e-12))
    lower: Tensor = torch.linalg.cholesky(damped)
    return lower


def whitened(weight: Tensor, lower: Tensor) -> Tensor:
    """Return W_p·L at each kernel position p, float64 [O × I × k × k]."""
    return torch.einsum("oikl,ij->ojkl", weight.detach().double(), lower)
