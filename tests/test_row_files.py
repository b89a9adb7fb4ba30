"""Rows that were appended batch by batch come back as they were, and leave nothing behind."""

from pathlib import Path

import numpy as np

from slimline import row_files


def test_appended_rows_come_back_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = {"ids": (np.int64, (5,)), "pixels": (np.uint8, (2, 3))}
    whole = {"ids": rng.integers(0, 9, (7, 5)), "pixels": rng.integers(0, 255, (7, 2, 3)).astype(np.uint8)}
    with row_files.appending(tmp_path, stored) as append:
        for rows in (slice(0, 4), slice(4, 7)):
            append({name: array[rows] for name, array in whole.items()})
    found = row_files.appended(tmp_path, stored)
    for name, array in whole.items():
        assert isinstance(found[name], np.memmap)
        np.testing.assert_array_equal(found[name], array)
    row_files.drop_appended(tmp_path, stored)
    assert not list(tmp_path.iterdir())
