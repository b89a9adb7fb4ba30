from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimline.errors import MethodError
from slimline.method import Batches, Context, compress
from slimline.methods.structured import Structured
from slimline.models.cnn import Cnn
from slimline.pruning import shares
from slimline.sensitivity import Sensitivity

Made = Callable[..., Context]


@settings(max_examples=50)
@given(
    st.dictionaries(st.text("abc", min_size=1), st.tuples(st.integers(1, 1000), st.floats(0, 10)), min_size=1),
    st.floats(0.05, 0.85),
)
def test_shares_add_up_and_the_more_sensitive_loses_less(units: dict[str, tuple[int, float]], ratio: float) -> None:
    sizes = {name: size for name, (size, _) in units.items()}
    found = shares.shares(sizes, lambda unit, r: units[unit][1] * r, ratio, 0.9)
    assert all(0 <= share <= 0.9 + 1e-9 for share in found.values())
    total = sum(sizes[name] * share for name, share in found.items())
    assert total == pytest.approx(ratio * sum(sizes.values()), rel=1e-3)
    ordered = sorted(units, key=lambda name: units[name][1])
    assert all(found[a] >= found[b] - 1e-6 for a, b in pairwise(ordered))


def test_each_layer_alone_would_cost_the_same() -> None:
    damages = {"a": 1.0, "b": 3.0, "c": 6.0}
    found = shares.shares(dict.fromkeys(damages, 10), lambda unit, r: damages[unit] * r, 0.3, 0.9)
    costs = [damages[unit] * share for unit, share in found.items()]
    assert costs == pytest.approx([0.6] * 3, rel=1e-3)


def test_a_group_that_the_model_does_without_goes_first(cnn: Cnn, batches: Batches, context: Made) -> None:
    """Its readers are zero; by bare l1 its outputs look as large as any."""
    with torch.no_grad():
        cnn.get_parameter("6.weight")[:, :12] = 0
    method = Structured("taylor", ratio=0.4, multiple=1, scope="sensitivity")
    pruned, plan = compress(method, cnn, batches, context())
    kept = {name: len(sides["out"]) for name, sides in plan.edit.data["kept"].items() if name in {"0", "3", "6"}}
    assert kept["3"] <= 5
    assert sum(kept.values()) == pytest.approx(0.6 * 32, abs=2)
    made = context()
    evenly, _ = compress(replace(method, scope="layer"), cnn, batches, made)
    study = Sensitivity(cnn, made)
    assert study.rise(pruned) < study.rise(evenly)


def test_sensitivity_shares_out_channels_only(cnn: Cnn, batches: Batches, context: Made) -> None:
    with pytest.raises(MethodError, match=r"here\.scope: sensitivity shares out channels; with of: macs leave it out"):
        Structured(of="macs", scope="sensitivity").plan(cnn, batches, context())
