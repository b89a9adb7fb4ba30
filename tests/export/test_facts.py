from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from slimline.export.facts import count_macs, count_params
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.models.cnn import Cnn
from slimline.tasks.digits import Digits


@pytest.mark.parametrize("width", [4, 8])
def test_params_and_macs_of_the_cnn_by_hand(task: Digits, width: int) -> None:
    """On 8×8: a convolution at 8×8, one with stride 2 and one at 4×4, then a linear layer on 2×2."""
    w = width
    weights = [9 * w, 9 * w * 2 * w, 9 * 2 * w * w, 4 * w * 10]
    norms = 2 * (w + 2 * w + w)
    assert count_params(Cnn(width=w)) == sum(weights) + norms + 10
    assert (
        count_macs(Cnn(width=w), task.signature()) == 64 * weights[0] + 16 * weights[1] + 16 * weights[2] + weights[3]
    )


def test_a_depthwise_convolution_multiplies_one_channel() -> None:
    signature = {"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 6, 5, 5]}]}
    assert count_macs(nn.Conv2d(6, 6, 3, padding=1, groups=6), signature) == 25 * 6 * 9


def test_quantizers_are_no_parameters_and_cost_no_macs(
    cnn: Cnn, batches: Batches, context: Callable[..., Context], task: Digits
) -> None:
    quantized, _ = compress(Linear(), cnn, batches, context())
    assert count_params(quantized) == count_params(cnn) - 32  # a norm's scale and shift become one bias
    assert count_macs(quantized, task.signature()) == count_macs(cnn, task.signature())
