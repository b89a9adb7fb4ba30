from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from slimline.errors import MethodError
from slimline.quantization.grids import Scheme, Spec, fake_quantize, scale_and_zero_point
from slimline.quantization.observers import (
    Entropy,
    MinMax,
    MovingAverage,
    Observer,
    Percentile,
    SquaredError,
    divergence,
)

values = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-1000, 1000, width=32),
).map(torch.from_numpy)
SPEC = Spec(8, "linear")
ALL: list[Callable[[], Observer]] = [
    MinMax,
    lambda: MovingAverage(0.9),
    lambda: Percentile(99.0),
    Entropy,
    SquaredError,
]
IDS = ["minmax", "moving average", "percentile", "entropy", "mse"]


def error(x: Tensor, spec: Spec, low: Tensor, high: Tensor) -> float:
    return float((x - fake_quantize(spec, x, *scale_and_zero_point(spec, low, high))).double().square().sum())


def heavy_tailed(rows: int = 20000) -> Tensor:
    """Normal values, one in a thousand of them twenty times as large."""
    x = torch.randn(rows, generator=torch.Generator().manual_seed(0))
    x[::1000] *= 20
    return x


@given(st.lists(values, min_size=1, max_size=4))
def test_minmax_is_the_range_of_everything_seen(batches: list[Tensor]) -> None:
    observer = MinMax()
    for batch in batches:
        observer.see(batch)
    low, high = observer.range(SPEC)
    everything = torch.cat([batch.flatten() for batch in batches])
    assert (low, high) == (everything.min(), everything.max())


@pytest.mark.parametrize("make", ALL, ids=IDS)
def test_an_observer_that_saw_nothing_has_no_range(make: Callable[[], Observer]) -> None:
    with pytest.raises(MethodError, match="calibration saw no data"):
        make().range(SPEC)


@pytest.mark.parametrize("wild", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("make", ALL, ids=IDS)
def test_values_that_are_not_finite_are_an_error(make: Callable[[], Observer], wild: float) -> None:
    observer = make()
    observer.see(torch.tensor([1.0, wild, 2.0]))
    observer.see(torch.tensor([1.0, 2.0]))
    with pytest.raises(MethodError, match="calibration saw values that are not finite"):
        observer.range(SPEC)


@given(st.lists(values, min_size=1, max_size=3), st.sampled_from(ALL), st.sampled_from(["symmetric", "linear"]))
def test_no_range_reaches_beyond_the_values(
    batches: list[Tensor], make: Callable[[], Observer], scheme: Scheme
) -> None:
    observer = make()
    for batch in batches:
        observer.see(batch)
    low, high = observer.range(Spec(4, scheme))
    everything = torch.cat([batch.flatten() for batch in batches])
    assert low <= high
    assert low >= min(everything.min(), 0) - 1e-3
    assert high <= max(everything.max(), 0) + 1e-3


# --- percentile ------------------------------------------------------------------------------------------------------


def test_percentile_leaves_the_rarest_values_out() -> None:
    observer = Percentile(99.0)
    observer.see(torch.arange(1000.0))
    low, high = observer.range(SPEC)
    assert (float(low), float(high)) == (9, 990)


def test_percentile_is_the_mean_over_batches() -> None:
    observer = Percentile(99.0)
    for scale in (1.0, 3.0):
        observer.see(torch.arange(1000.0) * scale)
    assert float(observer.range(SPEC)[1]) == 990 * 2


@given(values)
def test_percentile_100_is_minmax(x: Tensor) -> None:
    observer = Percentile(100.0)
    observer.see(x)
    assert observer.range(SPEC) == (x.min(), x.max())


# --- moving average --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=5), st.floats(0, 0.99))
def test_moving_average_is_its_formula(highs: list[float], momentum: float) -> None:
    observer = MovingAverage(momentum)
    expected = highs[0]
    for index, high in enumerate(highs):
        observer.see(torch.tensor([high - 1, high]))
        expected = expected if index == 0 else momentum * expected + (1 - momentum) * high
    low, high_found = observer.range(SPEC)
    assert float(high_found) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert float(low) == pytest.approx(expected - 1, rel=1e-4, abs=1e-3)


# --- entropy ---------------------------------------------------------------------------------------------------------


def test_entropy_clips_a_heavy_tail_and_keeps_the_bulk() -> None:
    observer = Entropy()
    observer.see(heavy_tailed())
    low, high = observer.range(Spec(8, "symmetric"))
    extremes = MinMax()
    extremes.see(heavy_tailed())
    assert 2 < float(high) < 0.5 * float(extremes.high)
    assert float(low) == pytest.approx(-float(high))


def test_entropy_has_nothing_to_clip_where_the_grid_has_a_level_a_bin() -> None:
    observer = Entropy()
    observer.see(heavy_tailed())
    assert observer.range(Spec(16, "symmetric")) == (heavy_tailed().min(), heavy_tailed().max())


def test_entropy_counts_the_same_whatever_the_order_of_batches() -> None:
    """A later batch of larger values makes the bins wider; what was counted before is merged, not lost."""
    x = heavy_tailed().abs().sort().values
    observer = Entropy()
    for batch in x.chunk(7):
        observer.see(batch)
    assert observer.counts.sum() == len(x)
    whole = Entropy()
    whole.see(x)
    found, expected = (float(each.range(Spec(8, "linear"))[1]) for each in (observer, whole))
    assert found == pytest.approx(expected, rel=0.5)  # bins that lie elsewhere shift the best T


def test_a_histogram_that_its_levels_hold_exactly_diverges_by_nothing() -> None:
    flat = torch.ones(64, dtype=torch.float64)
    assert divergence(flat, 64, 8) == pytest.approx(0)
    steep = torch.arange(1.0, 65.0, dtype=torch.float64) ** 3
    assert divergence(steep, 64, 8) > divergence(steep, 64, 16) > 0


# --- least squared error ---------------------------------------------------------------------------------------------


@given(values, st.integers(2, 8), st.sampled_from(["symmetric", "linear"]))
def test_mse_is_never_worse_than_minmax(x: Tensor, bits: int, scheme: Scheme) -> None:
    spec = Spec(bits, scheme)
    observer = SquaredError()
    observer.see(x)
    assert error(x, spec, *observer.range(spec)) <= error(x, spec, x.min(), x.max())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_mse_gains_most_where_steps_are_few(bits: int) -> None:
    x, spec = torch.randn(8000, generator=torch.Generator().manual_seed(0)), Spec(bits, "symmetric")
    observer = SquaredError()
    observer.see(x)
    assert error(x, spec, *observer.range(spec)) < 0.7 * error(x, spec, x.min(), x.max())
