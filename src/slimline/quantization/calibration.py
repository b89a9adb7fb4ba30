"""Calibration: data runs through a model whose quantizers pass it on unrounded, and their observers name the ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.quantization.observers import Observer
from slimline.quantization.quantizers import quantizers


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
                low, high = seen.range(activations[name].spec)
            except MethodError as error:
                why = "; is it reached in forward()?" if "no data" in str(error) else ""
                raise MethodError(f"layer {name.rpartition('.')[0]}: {error}{why}") from error
            activations[name].set_range(low, high)
    finally:
        for quantizer in activations.values():
            quantizer.observer = None
        model.train(was_training)
