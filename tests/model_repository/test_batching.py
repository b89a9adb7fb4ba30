from __future__ import annotations

import pytest

from slimline.model_repository.batching import Batching, choose


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        pytest.param({1: 0.1}, Batching(1, (), 0), id="one size"),
        pytest.param({1: 0.036, 8: 0.144, 32: 0.512}, Batching(32, (8, 32), 20), id="each size pays"),
        pytest.param({1: 5.0, 8: 40.0, 32: 170.0}, Batching(32, (), 0), id="none pays"),
        pytest.param({1: 1.0, 8: 4.0, 32: 20.0}, Batching(32, (8,), 500), id="the middle pays"),
        pytest.param({32: 16.0, 8: 4.0, 1: 1.0}, Batching(32, (8,), 500), id="in any order"),
        pytest.param({8: 4.0, 16: 4.0}, Batching(16, (16,), 250), id="without one row"),
    ],
)
def test_batches_are_chosen_by_what_a_row_costs(milliseconds: dict[int, float], chosen: Batching) -> None:
    assert choose({str(size): {"p50": each} for size, each in milliseconds.items()}) == chosen
