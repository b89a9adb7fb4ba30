"""Whole layers by what they are worth: what nobody misses goes first, on a real BERT and on residual nets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline import artifact
from slimline.artifact import Artifact, Named
from slimline.decisions import Decisions
from slimline.errors import MethodError
from slimline.method import Batch, Batches, Context, compress
from slimline.methods.depth import Depth
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.pruning import blocks
from slimline.sensitivity import divergence
from slimline.task import Split, call, tensors
from slimline.tasks.digits import Digits
from slimline.tasks.text import Text
from slimline.testing import check_method
from tests.encoders import text_project

LAYERS = "body.encoder.layer"


@pytest.fixture
def deep(splits: dict[str, Split]) -> ResNet:
    """Three stages of three blocks, the first block of the later two with a stride, warmed up on real rows."""
    torch.manual_seed(2)
    model = ResNet(depth=20, width=4, stem_stride=1).train()
    with torch.no_grad():
        for start in range(0, 400, 100):
            call(model, tensors(splits["train"][slice(start, start + 100)][0]))
    return model.eval()


@pytest.fixture(scope="module")
def own_task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Text]:
    with text_project(tmp_path_factory.mktemp("depth")) as task:
        yield task


@pytest.fixture
def encoder(own_task: Text) -> nn.Module:
    """A BERT of four layers whose third says nothing: its two output projections are zero."""
    pytest.importorskip("transformers")
    from slimline.models.hf_encoder import HfEncoder

    torch.manual_seed(1)
    model = HfEncoder("model", classes=3, config={"num_hidden_layers": 4, "initializer_range": 0.3})
    for name in (f"{LAYERS}.2.attention.output.dense", f"{LAYERS}.2.output.dense"):
        for parameter in model.get_submodule(name).parameters():
            nn.init.zeros_(parameter)
    return model.eval()


@pytest.fixture
def planned(own_task: Text) -> Callable[..., tuple[nn.Module, Any]]:
    """Compress a model of texts by a method."""
    rows = own_task.splits()

    def batches() -> Iterator[Batch]:
        inputs, y = rows["calibration"][slice(0, 24)]
        yield tensors(inputs), torch.from_numpy(y)

    def make(method: Depth, model: nn.Module, decisions: Decisions | None = None) -> tuple[nn.Module, Any]:
        context = Context(own_task, rows["calibration"], rows["validation"], None, decisions or Decisions(None, {}),  # type: ignore[arg-type]
                          where="here")  # fmt: skip
        return compress(method, model, batches, context)

    return make


@pytest.mark.parametrize("importance", ["divergence", "loss"])
def test_a_layer_that_says_nothing_goes_first(
    encoder: nn.Module, planned: Callable[..., tuple[nn.Module, Any]], own_task: Text, importance: Any
) -> None:
    smaller, plan = planned(Depth(keep=3, importance=importance), encoder)
    assert plan.edit.data == {"kept": {LAYERS: [0, 1, 3]}}
    inputs = tensors(own_task.splits()["validation"][slice(0, 16)][0])
    torch.testing.assert_close(call(smaller, inputs), call(encoder, inputs), atol=1e-4, rtol=1e-3)
    if importance == "divergence":
        _, plan = planned(Depth(ratio=0.5), encoder)
        assert len(plan.edit.data["kept"][LAYERS]) == 2
        assert f"{LAYERS}.2: gone, 1 of 2: KL to the model's own answers without it alone" in plan.notes[2]
        assert sum(": stays: KL to the model's own answers without it alone " in note for note in plan.notes) == 2
        assert plan.notes[-1].startswith("2 of 4 layers are gone: KL to the model's own answers ")


def test_the_cheapest_goes_and_the_rest_is_measured_anew(
    deep: ResNet, batches: Batches, context: Callable[..., Context], task: Digits
) -> None:
    """Greedy by hand: of every block that keeps its shape, then of what is left."""
    every = {"stages.0": [0, 1, 2], "stages.1": [1, 2], "stages.2": [1, 2]}
    assert blocks.droppable(deep, {"image": torch.zeros(2, 1, 8, 8)}) == every
    inputs = torch.cat([each["image"] for each, _ in batches()])
    own = deep(inputs).detach().numpy()
    kept = {name: [0, 1, 2] for name in every}
    order = []
    for _ in range(2):
        costs = {}
        for name, positions in every.items():
            for position in set(positions) & set(kept[name]):
                trial = {**kept, name: [each for each in kept[name] if each != position]}
                out = blocks.keep(copy.deepcopy(deep), trial)(inputs).detach().numpy()
                costs[name, position] = divergence(task, own, out)
        name, position = min(costs, key=lambda each: costs[each])
        kept[name].remove(position)
        order.append(f"{name}.{position}")
    _, plan = compress(Depth(keep=5), deep, batches, context())
    assert plan.edit.data["kept"] == kept
    for at, block in enumerate(order):
        assert any(note.startswith(f"{block}: gone, {at + 1} of 2: ") for note in plan.notes)


def test_within_leaves_the_other_lists_alone(deep: ResNet, batches: Batches, context: Callable[..., Context]) -> None:
    smaller, plan = compress(Depth(keep=0, within="stages.1"), deep, batches, context())
    assert plan.edit.data["kept"] == {"stages.1": [0]}
    assert [len(each) for each in smaller.get_submodule("stages").children()] == [3, 1, 3]  # type: ignore[arg-type]


def test_the_promises_of_a_method(resnet: ResNet, task: Digits) -> None:
    check_method(Depth(keep=0), resnet, task)


def test_the_choice_is_recorded_and_replayed(
    encoder: nn.Module, planned: Callable[..., tuple[nn.Module, Any]], tmp_path: Path
) -> None:
    first, plan = planned(Depth(keep=1), encoder, Decisions(tmp_path / "prune.json", "inputs"))
    again = Decisions(tmp_path / "prune.json", "inputs")
    other = copy.deepcopy(encoder)
    nn.init.zeros_(other.get_submodule("classifier").weight)  # type: ignore[arg-type]
    replayed, second = planned(Depth(keep=1), other, again)
    assert second == plan
    assert again.replayed == ["depth"]
    assert [name for name, _ in replayed.named_parameters()] == [name for name, _ in first.named_parameters()]


def test_an_artifact_comes_back(
    deep: ResNet, batches: Batches, context: Callable[..., Context], images: Tensor, tmp_path: Path
) -> None:
    model, plan = compress(Depth(ratio=0.4), deep, batches, context())
    named = Named("resnet", {"depth": 20, "width": 4, "stem_stride": 1})
    artifact.save(tmp_path / "a", model, Artifact(Named("digits"), named, [plan.edit], "prune"))
    assert torch.equal(artifact.load(tmp_path / "a")[0](images), model.eval()(images))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Depth(), "here: depth takes one of keep (how many stay) and ratio (the share that goes)"),
        (Depth(keep=1, ratio=0.5), "here: depth takes one of keep"),
        (Depth(keep=7), "here.keep: 7, but no more than 7 layers can go"),
        (Depth(ratio=0.05), "here.ratio: 0.05 of the 7 that can go is less than one"),
        (Depth(keep=1, within="stages.4"), "here.within: 'stages.4' is no list of blocks. Did you mean 'stages."),
    ],
    ids=["neither", "both", "too many", "too few", "unknown list"],
)
def test_what_cannot_be_is_one_line(
    deep: ResNet, batches: Batches, context: Callable[..., Context], method: Depth, message: str
) -> None:
    for act in (method.check_model, method.plan):
        with pytest.raises(MethodError) as caught:
            act(deep, batches, context())
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_a_net_none_of_whose_layers_keeps_its_shape(
    cnn: Cnn, batches: Batches, context: Callable[..., Context]
) -> None:
    found = blocks.droppable(cnn, {"image": torch.zeros(2, 1, 8, 8)})
    assert not found
    with pytest.raises(MethodError, match="here: no layer gives the shape it takes, so none can go"):
        Depth(keep=1).plan(cnn, batches, context())


class Numbered(nn.Module):
    """Its blocks are reached by number, so that the last can't go."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for block in range(3):
            x = self.blocks[block](x)
        return self.fc(x)  # type: ignore[no-any-return]


def test_a_model_that_reaches_its_layers_by_number_is_refused(
    batches: Batches, context: Callable[..., Context]
) -> None:
    with pytest.raises(MethodError, match=r"the model doesn't run without any more of its layers; blocks\.2: "):
        Depth(keep=2).plan(Numbered(), batches, context())
