from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, compress
from slimline.methods.magnitude import Magnitude
from slimline.models.cnn import Cnn
from slimline.params import Training
from slimline.pruning import masks
from slimline.sensitivity import Sensitivity
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import Epoch, State, fit
from slimline.training.losses import SoftTargets

Made = Callable[..., Context]


def share(model: nn.Module) -> float:
    """Return the share of zeros among the weights of all masked layers."""
    weights = [masks.weight(layer) for layer in masks.masked(model).values()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=4), st.floats(0.01, 0.99), st.sampled_from(["global", "layer"]),
    st.integers(0, 1000),
)  # fmt: skip
def test_the_share_is_exact_and_the_largest_stay(
    batches: Batches, context: Made, sizes: list[int], ratio: float, scope: Literal["global", "layer"], seed: int
) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(*(nn.Linear(into, out) for into, out in pairwise(sizes)))
    pruned, _ = compress(Magnitude(ratio, scope=scope, max_ratio=1), model, batches, context())
    before = [masks.weight(layer).flatten() for layer in model]
    after = [masks.weight(layer).flatten() for layer in pruned.children()]
    if scope == "global":
        before, after = [torch.cat(before)], [torch.cat(after)]
    for was, now in zip(before, after, strict=True):
        gone = now == 0
        assert int(gone.sum()) == round(ratio * len(was))
        assert torch.equal(now[~gone], was[~gone])
        if gone.any() and not gone.all():
            assert was[gone].abs().max() <= was[~gone].abs().min()


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_a_global_threshold_parts_the_weights_of_all_layers(
    cnn: Cnn, batches: Batches, context: Made, ratio: float
) -> None:
    pruned, plan = compress(Magnitude(ratio, max_ratio=1), cnn, batches, context())
    assert share(pruned) == pytest.approx(ratio, abs=1e-3)
    before = torch.cat([masks.weight(cnn.get_submodule(name)).flatten() for name in masks.masked(pruned)])
    after = torch.cat([masks.weight(layer).flatten() for layer in masks.masked(pruned).values()])
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert plan.notes[-1].endswith("dense kernels run no faster for it")


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_layer_scope_zeroes_the_same_share_of_each(cnn: Cnn, batches: Batches, context: Made, ratio: float) -> None:
    pruned, _ = compress(Magnitude(ratio, scope="layer"), cnn, batches, context())
    for layer in masks.masked(pruned).values():
        assert int((~masks.live(layer)).sum()) == round(ratio * masks.weight(layer).numel())


def test_sensitivity_scope_spares_the_layer_that_the_loss_hangs_on(cnn: Cnn, batches: Batches, context: Made) -> None:
    """The readers of most of layer 3's outputs are zero, so nearly all of that layer can go."""
    with torch.no_grad():
        cnn.get_parameter("6.weight")[:, :12] = 0
    pruned, _ = compress(Magnitude(0.6, scope="sensitivity", max_ratio=0.95), cnn, batches, context())
    zeros = {name: float((~masks.live(layer)).float().mean()) for name, layer in masks.masked(pruned).items()}
    assert share(pruned) == pytest.approx(0.6, abs=0.01)
    assert max(zeros, key=lambda name: zeros[name]) in {"3", "6"}
    evenly, _ = compress(Magnitude(0.6, scope="layer"), cnn, batches, context())
    study = Sensitivity(cnn, context())
    assert study.rise(pruned) < study.rise(evenly)


def test_no_layer_loses_more_than_max_ratio(cnn: Cnn, batches: Batches, context: Made) -> None:
    with torch.no_grad():
        cnn.get_parameter("3.weight").mul_(1e-3)
    pruned, _ = compress(Magnitude(0.6, max_ratio=0.75), cnn, batches, context())
    assert share(pruned) == pytest.approx(0.6, abs=1e-3)
    assert (~masks.live(pruned.get_submodule("3"))).float().mean() <= 0.75


def test_skipped_layers_carry_no_mask(cnn: Cnn, batches: Batches, context: Made) -> None:
    pruned, _ = compress(Magnitude(0.5, skip=["0", "1?"]), cnn, batches, context())
    assert list(masks.masked(pruned)) == ["3", "6"]


def test_the_share_grows_by_zhu_and_guptas_cubic() -> None:
    method = Magnitude(0.8, schedule="cubic", start=0.2, ramp=0.5)
    found = [method._share(0.8, step, 200) for step in (0, 25, 50, 100, 200)]
    assert found == pytest.approx([0.2, 0.8 - 0.6 * 0.75**3, 0.8 - 0.6 * 0.5**3, 0.8, 0.8])
    assert method._share(0.4, 0, 200) == pytest.approx(0.1)  # a layer that ends at half the share starts at half


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_zeros_grow_while_recovery_trains_and_only_the_full_share_is_kept(
    cnn: Cnn, task: Digits, splits: dict[str, Split], batches: Batches, context: Made, tmp_path: Path, scope: str
) -> None:
    method = Magnitude(0.8, scope=scope, schedule="cubic", start=0.2, ramp=0.7, every=2)  # type: ignore[arg-type]
    model, _ = compress(method, cnn, batches, context())
    assert share(model) == pytest.approx(0.2, abs=2e-3)
    history, seen = [], []
    constrain = Magnitude.constrain

    def watch(self: Magnitude, at: nn.Module, step: int, total: int) -> None:
        constrain(self, at, step, total)
        history.append(share(at))

    def on_epoch(record: Epoch) -> None:
        seen.append(record.epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Magnitude, "constrain", watch)
        fit(
            model, task, splits["train"].head(200), splits["validation"].head(50),
            Training(epochs=4, batch_size=50, lr=1e-6), loss=SoftTargets(), seed=0, state=State({}, tmp_path),
            where="here", methods=[method], on_epoch=on_epoch,
        )  # fmt: skip
    assert history == sorted(history)
    assert history[4] == pytest.approx(method._share(0.8, 4, 16), abs=5e-3)
    # at so small a rate the first epoch, with the fewest zeros, would be the best
    assert share(model) == pytest.approx(0.8, abs=2e-3)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Magnitude(0.5, schedule="cubic", start=0.6), r"here\.start: 0\.6 is above ratio, 0\.5"),
        (Magnitude(0.99), r"here\.ratio: 0\.99 is above max_ratio, 0\.98"),
    ],
    ids=["start", "max_ratio"],
)
def test_impossible_settings_are_named(
    cnn: Cnn, batches: Batches, context: Made, method: Magnitude, message: str
) -> None:
    with pytest.raises(MethodError, match=message):
        method.plan(cnn, batches, context())
