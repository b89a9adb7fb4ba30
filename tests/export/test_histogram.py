"""Histograms count every value once, in whatever parts it is seen."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimline.export import histogram
from slimline.export.histogram import BINS, Histogram

values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


def ends(found: dict[str, object]) -> list[tuple[float, float, int]]:
    """Return (low, high, count) of each bin."""
    exponent, first, counts = found["exponent"], found["first"], found["counts"]
    assert isinstance(exponent, int)
    assert isinstance(first, int)
    assert isinstance(counts, list)
    step = 2.0**exponent
    return [((first + at) * step, (first + at + 1) * step, count) for at, count in enumerate(counts)]


@given(st.lists(values, min_size=1, max_size=4))
def test_every_value_is_counted_in_the_bin_that_holds_it(parts: list[list[float]]) -> None:
    histogram = Histogram()
    for part in parts:
        histogram.add(torch.tensor(part))
    everything = torch.tensor([value for part in parts for value in part])
    found = ends(histogram.data())
    assert len(found) <= BINS
    for low, high, count in found:
        assert count == int(((everything >= low) & (everything < high)).sum())
    assert sum(count for *_, count in found) == len(everything)
    assert found[0][2] > 0, "no empty bin at either end"
    assert found[-1][2] > 0


@given(values, values)
def test_the_order_of_the_parts_does_not_matter(one: list[float], other: list[float]) -> None:
    first, second = Histogram(), Histogram()
    for each, order in ((first, (one, other)), (second, (other, one))):
        for part in order:
            each.add(torch.tensor(part))
    assert first.data() == second.data()


@pytest.mark.parametrize(
    ("x", "low", "high"),
    [
        (torch.zeros(5), 0.0, 2.0**-90),
        (torch.full((5,), 3.0), 3.0, 3.1),
        (torch.tensor([1.0, math.nan, math.inf, -math.inf]), 1.0, 1.1),
    ],
    ids=["zeros", "a constant", "not numbers"],
)
def test_values_without_spread(x: Tensor, low: float, high: float) -> None:
    (only,) = ends(histogram.of(x))
    assert only[0] <= low < only[1] <= high
    assert only[2] == int(x.isfinite().sum())


def test_nothing_seen_is_no_bin() -> None:
    assert histogram.of(torch.zeros(0))["counts"] == []


def test_an_even_spread_fills_more_than_half_of_the_bins() -> None:
    found = histogram.of(torch.linspace(-0.37, 1.21, 10_000))
    assert BINS / 2 <= len(found["counts"]) <= BINS
