"""Ranks of low-rank factorizations: how params.yaml asks for them, and which whole numbers come of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Discriminator, Field, Tag
from torch import Tensor

Ranks = list[int]


@dataclass(frozen=True)
class Ratio:
    """Every rank is this share of the full one, rounded to ``multiple``, and at least that."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    ratio: Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Energy:
    """Every rank is the smallest whose squared singular values sum to this share of all."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    energy: Annotated[float, Field(gt=0, lt=1)]


def _kind_of_rank(rank: Any) -> str | None:
    """Return the tag of what ``rank`` is meant as, None where that is unclear."""
    if isinstance(rank, Mapping):
        return None if {"ratio", "energy"} <= rank.keys() else "[energy]" if "energy" in rank else "[ratio]"
    return {"auto": "[auto]", Ratio: "[ratio]", Energy: "[energy]"}.get(rank if isinstance(rank, str) else type(rank))


Rank = Annotated[
    Annotated[Literal["auto"], Tag("[auto]")] | Annotated[Ratio, Tag("[ratio]")] | Annotated[Energy, Tag("[energy]")],
    Discriminator(
        _kind_of_rank,
        custom_error_type="rank",
        custom_error_message="Input should be auto, or one of {ratio: r} and {energy: e}",
    ),
]


def rank_of_energy(spectrum: Tensor, energy: float) -> int:
    """Return the smallest rank whose squared singular values (descending) sum to ``energy`` of all."""
    shares = spectrum.square().cumsum(0) / spectrum.square().sum().clamp(min=torch.finfo(spectrum.dtype).tiny)
    return min(int((shares < energy).sum()) + 1, len(spectrum))


def candidate_ranks(sizes: Sequence[int], ratios: Sequence[float], multiple: int) -> list[Ranks]:
    """Return one rank a size for each ratio, rounded to ``multiple`` and below the size, without repeats."""
    found: list[Ranks] = []
    for ratio in sorted(ratios):
        ranks = [max(multiple, round_to(size * ratio, multiple)) for size in sizes]
        if all(rank < size for rank, size in zip(ranks, sizes, strict=True)) and ranks not in found:
            found.append(ranks)
    return found


def round_to(value: float, multiple: int) -> int:
    """Return the multiple nearest to ``value``."""
    return round(value / multiple) * multiple
