from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimline.errors import MethodError
from slimline.method import Batches, Context, compress
from slimline.methods.n_m import NM, largest
from slimline.models.cnn import Cnn
from slimline.pruning import masks

Made = Callable[..., Context]


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 8), st.booleans(), st.integers(0, 1000), st.data())
def test_exactly_the_n_largest_of_every_m_inputs_stay(
    out: int, groups: int, m: int, image: bool, seed: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, m - 1))
    shape = (out, groups * m, 3, 3) if image else (out, groups * m)
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    keep = largest(values, n, m)
    assert keep.shape == values.shape
    for start in range(0, groups * m, m):
        mine, kept = values[:, start : start + m], keep[:, start : start + m]
        assert (kept.sum(1) == n).all()
        weakest = mine.masked_fill(~kept, torch.inf).amin(1)
        assert (mine.masked_fill(kept, 0).amax(1) <= weakest).all()


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 8)])
def test_layers_that_dont_divide_stay_dense_and_say_so(
    cnn: Cnn, batches: Batches, context: Made, n: int, m: int
) -> None:
    pruned, plan = compress(NM(n, m), cnn, batches, context())
    assert list(masks.masked(pruned)) == ["3", "6", "11"]
    assert f"0: stays dense: 1 inputs are no multiple of {m}" in plan.notes
    assert all(masks.live(layer).float().mean() == n / m for layer in masks.masked(pruned).values())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (NM(4, 4), r"here\.n: 4 of 4 leaves every weight; n must be below m"),
        (NM(2, 7), r"here\.m: no layer's inputs are a multiple of 7"),
    ],
    ids=["n", "m"],
)
def test_impossible_settings_are_named(cnn: Cnn, batches: Batches, context: Made, method: NM, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        method.plan(cnn, batches, context())
