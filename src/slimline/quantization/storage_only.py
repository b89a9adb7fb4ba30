"""Widths that save space and no time: what ONNX Runtime has no fast kernels for."""

from __future__ import annotations

from collections import defaultdict

from torch import nn

from slimline.quantization.grids import Spec, container


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
