from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline import artifact
from slimline.artifact import Artifact, Named
from slimline.errors import ArtifactError, MethodError
from slimline.method import Batches, Context, Edit, compress
from slimline.methods.drop_layers import DropLayers
from slimline.methods.structured import Structured
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.tasks.digits import Digits
from slimline.testing import check_method


@pytest.fixture
def deep() -> ResNet:
    """Three stages of three blocks."""
    torch.manual_seed(2)
    return ResNet(depth=20, width=4, stem_stride=1).eval()


def test_the_promises_of_a_method(resnet: ResNet, task: Digits) -> None:
    check_method(DropLayers({"stages.0": []}), resnet, task)


def test_blocks_that_stay_keep_their_weights(
    deep: ResNet, batches: Batches, context: Callable[..., Context], images: Tensor
) -> None:
    smaller, plan = compress(DropLayers({"stages.1": [0, 2], "stages.2": [0]}), deep, batches, context())
    stages: Any = smaller.get_submodule("stages")
    assert [len(stage) for stage in stages] == [3, 2, 1]
    before, after = deep.state_dict(), smaller.state_dict()
    assert torch.equal(after["stages.1.1.conv1.weight"], before["stages.1.2.conv1.weight"])
    expected = deep.stages[0](deep.relu(deep.bn(deep.conv(images))))
    for block in (deep.stages[1][0], deep.stages[1][2], deep.stages[2][0]):  # type: ignore[index]
        expected = block(expected)
    torch.testing.assert_close(smaller(images), deep.fc(deep.flatten(deep.pool(expected))))
    assert plan.notes == ["stages.1: 2 of 3 blocks kept", "stages.2: 1 of 3 blocks kept"]


def test_an_artifact_comes_back_after_dropping_and_pruning(
    deep: ResNet, batches: Batches, context: Callable[..., Context], images: Tensor, tmp_path: Path
) -> None:
    model: nn.Module = deep
    edits = []
    for method in (DropLayers({"stages.0": [2]}), Structured(ratio=0.3, multiple=2), DropLayers({"stages.2": [0, 1]})):
        model, plan = compress(method, model, batches, context())
        edits.append(plan.edit)
    described = Artifact(Named("digits"), Named("resnet", {"depth": 20, "width": 4, "stem_stride": 1}), edits, "prune")
    artifact.save(tmp_path / "a", model, described)
    loaded, _ = artifact.load(tmp_path / "a")
    assert torch.equal(loaded(images), model.eval()(images))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"stages.3": [0]}, "'stages.3' is no list of blocks. Did you mean 'stages.2'? Lists: 'stages', 'stages.0'"),
        ({"fc": [0]}, "'fc' is no list of blocks. Lists: 'stages'"),
        ({"stages.0": [0, 3]}, "stages.0: [0, 3] are not positions in order, of the 3 it has"),
        ({"stages.0": [1, 0]}, "stages.0: [1, 0] are not positions in order"),
        ({"stages.0": [0, 0]}, "stages.0: [0, 0] are not positions in order"),
        ({"stages.1": [1, 2]}, "block stages.1.0 can't go: it takes [4, 8, 8] a row and gives [8, 4, 4]"),
        ({"stages": [0, 1]}, "block stages.2 can't go: it takes [8, 4, 4] a row and gives [16, 2, 2]"),
    ],
    ids=["unknown", "no list", "beyond", "out of order", "twice", "strided", "a whole stage"],
)
def test_what_cannot_go_is_named(
    deep: ResNet, batches: Batches, context: Callable[..., Context], keep: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(MethodError) as caught:
        DropLayers(keep).plan(deep, batches, context())
    assert str(caught.value).startswith(f"here.keep: {message}")
    assert "\n" not in str(caught.value)


class Listed(nn.Module):
    """Blocks in a ModuleList that are reached by number, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.idle = nn.ModuleList([nn.Identity()])
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for block in range(3):
            x = self.blocks[block](x)
        return self.fc(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"blocks": [0, 1]}, "the model doesn't run without blocks.2: IndexError"),
        ({"idle": []}, "block idle.0 is never run"),
    ],
    ids=["reached by number", "idle"],
)
def test_a_model_that_does_not_run_without_a_block_is_named(
    batches: Batches, context: Callable[..., Context], keep: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(MethodError, match=message):
        DropLayers(keep).plan(Listed(), batches, context())


def test_the_model_itself_may_be_the_list(cnn: Cnn, batches: Batches, context: Callable[..., Context]) -> None:
    smaller, _ = compress(DropLayers({"": [*range(8), *range(9, 12)]}), cnn, batches, context())
    assert isinstance(smaller, Cnn)
    assert isinstance(smaller[8], nn.AdaptiveAvgPool2d)


def test_an_edit_that_fits_no_such_model_is_one_line(cnn: Cnn, described: dict[str, Artifact], tmp_path: Path) -> None:
    edit = Edit("drop-layers", {"kept": {"stages.0": [0]}})
    artifact.save(tmp_path / "a", cnn, replace(described["cnn"], edits=[edit]))
    with pytest.raises(ArtifactError, match=r"model.json: edits.0: drop-layers doesn't fit this model"):
        artifact.load(tmp_path / "a")
