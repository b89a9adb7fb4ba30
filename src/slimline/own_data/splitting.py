"""Rows dealt to splits: deterministic, classes in proportion, and what belongs together stays together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]


def joined(*codes: Codes) -> Codes:
    """Return one group number a row: rows that share a number in any of ``codes``, directly or by others, share it."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows = len(codes[0])
    offsets = np.cumsum([rows, *(int(each.max(initial=-1)) + 1 for each in codes)])
    nodes = np.concatenate([each + start for each, start in zip(codes, offsets, strict=False)])
    source = np.tile(np.arange(rows), len(codes))
    graph = coo_matrix((np.ones(len(nodes), np.int8), (source, nodes)), shape=(offsets[-1], offsets[-1]))
    _, found = connected_components(graph, directed=False)
    return np.asarray(found[:rows], np.int64)


def deal(strata: Codes, groups: Codes, shares: Mapping[str, float], seed: int) -> dict[str, Codes]:
    """Deal rows to parts in the proportions ``shares``, in each stratum alike; return sorted row numbers by part.

    A group goes to one part as a whole, in the stratum of its first row. Groups are shuffled by ``seed``, the largest
    are dealt first, each to the part that lacks most. Where strata are so small that rounding leaves a part less than
    half of its share, each goes on with what those before it left; its first group still goes to the largest part.
    """
    names, wanted = list(shares), np.array(list(shares.values()), np.float64)
    wanted = wanted / wanted.sum()
    parts = _dealt(strata, groups, wanted, seed)
    if (np.bincount(parts, minlength=len(names)) < wanted * len(parts) / 2).any():
        parts = _dealt(strata, groups, wanted, seed, carry=True)
    return {name: np.flatnonzero(parts == at) for at, name in enumerate(names)}


def _dealt(strata: Codes, groups: Codes, wanted: NDArray[np.float64], seed: int, *, carry: bool = False) -> Codes:
    """Return the part of each row; with ``carry`` a stratum makes up for what those before it could not deal."""
    _, first, unit, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part_of = np.zeros(len(first), np.int64)
    left = np.zeros(len(wanted))
    for stratum in np.unique(strata[first]):
        units = order[strata[first][order] == stratum]
        lacking = wanted * sizes[units].sum() + (left if carry else 0)
        for at, each in enumerate(units):
            part = int(np.argmax(lacking if at else wanted))
            part_of[each] = part
            lacking[part] -= sizes[each]
        left = lacking
    return np.asarray(part_of[unit.reshape(-1)], np.int64)
