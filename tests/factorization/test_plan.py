from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slimline import measure
from slimline.factorization import whitening
from slimline.factorization.ranks import Rank, Ratio, candidate_ranks
from slimline.latency import Samples
from slimline.method import Batches, Context
from slimline.methods.svd import Svd
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.sensitivity import Sensitivity

Made = Callable[..., Context]


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=2),
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4),
    st.sampled_from([1, 4, 8]),
)
def test_candidate_ranks_are_multiples_below_the_sizes(sizes: list[int], ratios: list[float], multiple: int) -> None:
    found = candidate_ranks(sizes, ratios, multiple)
    assert len(found) <= len(ratios)
    assert len({tuple(ranks) for ranks in found}) == len(found)
    for ranks in found:
        assert all(0 < rank < size and rank % multiple == 0 for rank, size in zip(ranks, sizes, strict=True))


def test_candidate_ranks_by_example() -> None:
    assert candidate_ranks([32], [0.5, 0.25, 0.26], 8) == [[8], [16]]
    assert candidate_ranks([8, 64], [0.5], 8) == []


def test_no_choice_leaves_no_tensors(resnet: ResNet, batches: Batches, context: Made) -> None:
    plan = Svd().plan(resnet, batches, context(svd={}))
    assert plan.edit.data["ranks"] == {}
    assert dict(plan.tensors) == {}


def test_a_choice_is_measured_and_says_why(cnn: Cnn, batches: Batches, context: Made) -> None:
    made = context()
    plan = Svd(multiple=4, min_gain=1000.0).plan(cnn, batches, made)
    entry = made.decisions.choices["svd"]["layers"]["11"]
    assert entry["ranks"] is None
    assert entry["why"].startswith("stays: its fastest rank runs at")
    assert entry["gains"]
    assert plan.edit.data["ranks"] == {}
    assert plan.notes[-1] == "no layer pays on this target: the model stays as it is"


@pytest.mark.parametrize("rank", ["auto", Ratio(0.25)], ids=["auto", "ratio"])
def test_a_layer_that_is_not_considered_says_why(
    resnet: ResNet, batches: Batches, context: Made, monkeypatch: pytest.MonkeyPatch, rank: Rank
) -> None:
    timed(monkeypatch, layer=2.0, whole=2.0)
    resnet.stray = nn.Linear(2, 2)
    made = context()
    plan = Svd(rank=rank, skip=["stages.2.*", "f?"]).plan(resnet, batches, made)
    layers = made.decisions.choices["svd"]["layers"]
    kinds = (nn.Conv2d, nn.Linear)
    assert list(layers) == [name for name, layer in resnet.named_modules() if isinstance(layer, kinds)]
    expected = {
        "fc": "stays: skip 'f?'",
        "stages.2.0.shortcut.0": "stays: skip 'stages.2.*'",
        "stages.2.0.conv1": "stays: not a linear layer or a dense 1×1 convolution",
        "stray": "stays: no data reaches it",
    }
    for name, why in expected.items():
        assert layers[name] == {"ranks": None, "why": why}
        assert f"{name}: {why}" in plan.notes


@pytest.mark.parametrize("rank", ["auto", Ratio(0.25)], ids=["auto", "ratio"])
def test_no_layer_to_factorize_is_said(cnn: Cnn, batches: Batches, context: Made, rank: Rank) -> None:
    plan = Svd(rank=rank, skip=["11"]).plan(cnn, batches, context())
    assert plan.edit.data["ranks"] == {}
    assert plan.notes[-2:] == ["11: stays: skip '11'", "no layer for svd: the model stays as it is"]


def timed(monkeypatch: pytest.MonkeyPatch, *, layer: float, whole: float) -> None:
    """Let every rank run ``layer`` times as fast as its layer alone, and the changed model ``whole`` times."""

    def layers(variants: dict[str, nn.Module], *_: object) -> dict[str, dict[int, float]]:
        return {name: dict.fromkeys((1, 8), 1.0 if name == "whole" else 1 / layer) for name in variants}

    def models(variants: dict[str, nn.Module], *_: object) -> dict[str, dict[int, Samples]]:
        seconds = {"before": 1.0, "after": 1 / whole}
        return {name: dict.fromkeys((1, 8), Samples(np.full((5, 3), seconds[name]))) for name in variants}

    monkeypatch.setattr(measure, "layers", layers)
    monkeypatch.setattr(measure, "models", models)


@pytest.mark.parametrize(
    ("max_drop", "whole", "taken", "said"),
    [
        pytest.param(0.01, 2.0, False, "but cost", id="beyond the validation budget"),
        pytest.param(1.0, 1.0, False, "alone it gains, the whole model doesn't", id="the whole is no faster"),
        pytest.param(1.0, 2.0, True, "2.00× faster alone", id="both hold"),
    ],
)
def test_a_rank_is_taken_where_it_pays_within_the_budget(
    cnn: Cnn, batches: Batches, context: Made, monkeypatch: pytest.MonkeyPatch, *,
    max_drop: float, whole: float, taken: bool, said: str,
) -> None:  # fmt: skip
    timed(monkeypatch, layer=2.0, whole=whole)
    plan = Svd(ratios=[0.1], multiple=1, max_drop=max_drop).plan(cnn, batches, context())
    assert bool(plan.edit.data["ranks"]) is taken
    assert any(said in note for note in plan.notes)


def test_a_rank_whose_layer_alone_costs_too_much_is_not_taken(
    cnn: Cnn, batches: Batches, context: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, layer=2.0, whole=2.0)
    loose = Svd(ratios=[0.1], multiple=1, max_drop=1.0)
    fixed = Svd(rank=Ratio(0.1), multiple=1)
    rise = Sensitivity(cnn, context()).cost(fixed, "11", fixed.alone(cnn, batches, context())["11"]).rise
    assert rise > 0
    for limit, taken in ((rise * 0.9, False), (rise * 1.1, True)):
        plan = replace(loose, max_loss=limit).plan(cnn, batches, context())
        assert bool(plan.edit.data["ranks"]) is taken
        said = f"alone raise the validation loss by {rise:.4f}, max_loss is {limit:g}"
        assert any(said in note for note in plan.notes) is not taken


def test_a_rank_measured_by_the_study_is_not_measured_again(
    cnn: Cnn, batches: Batches, context: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed(monkeypatch, layer=2.0, whole=2.0)
    made = replace(context(), cache=tmp_path)
    fixed = Svd(rank=Ratio(0.1), multiple=1)
    Sensitivity(cnn, made).cost(fixed, "11", fixed.alone(cnn, batches, made)["11"])

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Sensitivity, "_measure", never)
    Svd(ratios=[0.1], multiple=1, max_drop=1.0, max_loss=9.0).plan(cnn, batches, made)


@pytest.mark.parametrize(("whiten", "passes"), [(True, 3), (False, 1)], ids=["whitened", "bare"])
def test_covariances_are_found_once_however_many_layers_pay(
    resnet: ResNet, batches: Batches, context: Made, monkeypatch: pytest.MonkeyPatch, *, whiten: bool, passes: int
) -> None:
    """Two shortcuts and a linear layer, the covariance of one at a time."""
    timed(monkeypatch, layer=2.0, whole=2.0)
    monkeypatch.setattr(whitening, "LEAST", 0)
    monkeypatch.setattr(whitening, "SHARE", 0)
    runs = []
    for each in ("covariances", "wild"):
        own = getattr(whitening, each)
        monkeypatch.setattr(whitening, each, lambda *args, own=own: runs.append(args[1]) or own(*args))
    method = Svd(ratios=[0.25, 0.5], multiple=1, max_drop=1.0, whiten=whiten)
    plan = method.plan(resnet, batches, context())
    assert len(plan.edit.data["ranks"]) > 2
    assert len(runs) == passes
