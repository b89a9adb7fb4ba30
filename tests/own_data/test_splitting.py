"""Rows dealt to splits: in proportion, whatever the classes' sizes."""

from __future__ import annotations

import numpy as np
import pytest

from slimline.own_data import splitting

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.2, "calibration": 0.1}


@pytest.mark.parametrize(("rows", "classes"), [(4, 200), (5, 200), (1000, 3)], ids=lambda each: f"{each}")
def test_classes_of_few_rows_are_dealt_in_proportion(rows: int, classes: int) -> None:
    """None of 1,000 rows was left for calibration where each class has five."""
    strata = np.repeat(np.arange(classes), rows)
    found = splitting.deal(strata, np.arange(len(strata)), SHARES, seed=0)
    for part, share in SHARES.items():
        assert len(found[part]) == pytest.approx(share * len(strata), rel=0.02)
    assert len(np.unique(strata[found["train"]])) == classes, "each class is learnt"


def test_a_class_of_one_row_is_learnt_from_it() -> None:
    strata = np.concatenate([np.repeat(np.arange(100), 5), 100 + np.arange(30)])
    found = splitting.deal(strata, np.arange(len(strata)), SHARES, seed=0)
    assert len(np.unique(strata[found["train"]])) == 130
    assert min(map(len, found.values())) > 0.05 * len(strata)


def test_groups_stay_together_where_classes_are_small() -> None:
    strata = np.repeat(np.arange(100), 5)
    groups = np.arange(500) // 2
    found = splitting.deal(strata, groups, SHARES, seed=0)
    held = [set(groups[rows]) for rows in found.values()]
    assert sum(map(len, held)) == len(set().union(*held)) == 250
