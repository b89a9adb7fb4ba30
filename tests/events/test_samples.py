"""What was sampled is read in queries of few lengths, however many rows a page has."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from slimline.events import EventStore, samples
from tests.events.conftest import Make


def test_queries_have_few_lengths_and_leave_nothing_out() -> None:
    for count in (0, 1, 3, samples.KEYS, samples.KEYS + 1, 3 * samples.KEYS - 7):
        rows = [SimpleNamespace(id=f"p{n:04}", source=1, sampled="[0]" if n % 2 else None) for n in range(2 * count)]
        found = list(samples.keys(rows))
        assert {len(each) for each in found} <= {1 << power for power in range(9)}
        assert {key for each in found for key in each} == {(f"p{n:04}", 1) for n in range(1, 2 * count, 2)}


def test_a_page_of_any_number_of_samples_is_read(sqlite_url: str, make: Make) -> None:
    count = 2 * samples.KEYS + 3
    with EventStore.open(sqlite_url) as store:
        store.write(
            [
                make(f"p{n}", float(n), sampled=[0], stages={"teacher": np.full((1, 2), n, np.float32)})
                for n in range(count)
            ]
        )
        found = [float(each.stages["teacher"][0, 0]) for each in store.predictions(sampled=True) if each.stages]
    assert found == [float(n) for n in range(count)]
