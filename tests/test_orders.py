"""All 24 orders of distill, prune, quantize and factorize, as a tree of prefixes: each step is done once.

After every step the model is saved and loaded (bit-equal outputs), exported, and run in ONNX Runtime; what earlier
steps did must still hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline import artifact, masks
from slimline.artifact import Artifact
from slimline.export.onnx import to_onnx
from slimline.factorization import Ratio
from slimline.method import Batches, Context, Method, compress
from slimline.methods.float16 import Float16
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.methods.structured import Structured
from slimline.methods.svd import Svd
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.params import Training
from slimline.quantizers import quantizers
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import State, fit
from slimline.training.losses import SoftTargets
from slimline.training.teacher_cache import TeacherCache

STEPS = ("distill", "prune", "quantize", "factorize")
QUANTIZE = {
    "linear": Linear(),
    "learned": Symmetric(learned_steps=True, equalize=True, bias_correction=True),
    "float16": Float16(),
}
METHODS: dict[str, tuple[Method, ...]] = {
    "prune": (Structured("l2", ratio=0.3, multiple=2), Magnitude(ratio=0.5, scope="layer")),
    "factorize": (Svd(rank=Ratio(0.4), multiple=1),),
}
Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Node:
    """A model on its way, with the steps that made it and their description."""

    done: tuple[str, ...]
    model: nn.Module
    described: Artifact


@dataclass(frozen=True)
class Ground:
    """Everything that the steps need."""

    task: Digits
    splits: dict[str, Split]
    batches: Batches
    context: Callable[..., Context]
    teacher: nn.Module
    folder: Path
    methods: dict[str, tuple[Method, ...]]


@pytest.fixture
def ground(
    task: Digits, splits: dict[str, Split], batches: Batches, context: Callable[..., Context], cnn: Cnn, tmp_path: Path
) -> Ground:
    """The digits task, its teacher, and a folder for artifacts."""
    return Ground(task, splits, batches, context, copy.deepcopy(cnn), tmp_path, METHODS)


def step(ground: Ground, node: Node, name: str) -> Node:
    """Do one step; distill trains the model itself for an epoch on soft targets."""
    done = (*node.done, name)
    if name != "distill":
        model, edits = node.model, list(node.described.edits)
        for method in ground.methods[name]:
            model, plan = compress(method, model, ground.batches, ground.context())
            edits.append(plan.edit)
        return Node(done, model.eval(), replace(node.described, edits=edits))
    model = copy.deepcopy(node.model)
    train = ground.splits["train"].head(300)
    cache = TeacherCache(ground.teacher, ground.task, train, "teacher", 0, ground.folder / "teacher")
    fit(
        model, ground.task, train, ground.splits["validation"], Training(epochs=1, batch_size=50, lr=1e-3),
        loss=SoftTargets(), seed=0, state=State({"done": done}, ground.folder / "state"), where="here", teacher=cache,
    )  # fmt: skip
    return Node(done, model, node.described)


def tree(ground: Ground, node: Node) -> Iterator[tuple[Node, Node]]:
    """Yield (before, after) of every step of every order that begins with ``node``."""
    for name in STEPS:
        if name not in node.done:
            after = step(ground, node, name)
            yield node, after
            yield from tree(ground, after)


def widths(model: nn.Module) -> list[int]:
    """Return the output width of each layer that was there at the start (factors count as their layer)."""
    found = []
    for name in ("0", "3", "6", "11"):
        layer = model.get_submodule(name)
        parts = [each for each in layer.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
        found.append(parts[-1].weight.shape[0])
    return found


def factorized(model: nn.Module) -> bool:
    """Return whether the last layer is a sequence of two."""
    return isinstance(model.get_submodule("11"), nn.Sequential)


@pytest.mark.parametrize("first", STEPS)
@pytest.mark.parametrize("quantize", QUANTIZE)
def test_every_order(
    quantize: str, first: str, ground: Ground, described: dict[str, Artifact], images: Tensor, answer: Answer
) -> None:
    ground = replace(ground, methods={**METHODS, "quantize": (QUANTIZE[quantize],)})
    start = Node((), copy.deepcopy(ground.teacher).eval(), described["cnn"])
    root = step(ground, start, first)
    orders = 0
    for before, after in [(start, root), *tree(ground, root)]:
        check_kept(before, after)
        check_saved(ground, after, images)
        if quantize == "linear" or len(after.done) == len(STEPS):  # exporting takes longest
            check_exported(ground, after, images, answer)
        orders += len(after.done) == len(STEPS)
    assert orders == 6


def check_kept(before: Node, after: Node) -> None:
    """What a step did holds after the next one: widths, zeros, quantizers, factors."""
    check_zeros(before, after)
    now = after.done[-1]
    assert (widths(after.model) == widths(before.model)) is (now != "prune"), after.done
    assert bool(quantizers(after.model)) is ("quantize" in after.done), after.done
    assert factorized(after.model) is ("factorize" in after.done), after.done
    if "quantize" in after.done:
        layers = [each for each in after.model.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
        assert all(hasattr(layer, "weight_quantizer") for layer in layers), after.done
        assert all(
            torch.isfinite(each.scale).all() and (each.scale > 0).all() for each in quantizers(after.model).values()
        )


def check_zeros(before: Node, after: Node) -> None:
    """Half of the weights are zero from prune on, the same ones, in what layers multiply by too; factors are dense."""
    if "prune" not in after.done:
        assert not masks.masked(after.model), after.done
        return
    layers = [name for name, each in after.model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    since = after.done[after.done.index("prune") :]
    dense = ["11.0", "11.1"] if "factorize" in since else []
    assert [name for name in layers if name not in dense] == list(masks.masked(after.model)), after.done
    for name, layer in masks.masked(after.model).items():
        gone = ~masks.live(layer)
        assert gone.float().mean() == pytest.approx(0.5, abs=0.5 / gone.numel() + 1e-6), (after.done, name)
        used = layer.quantized_weight() if hasattr(layer, "quantized_weight") else masks.weight(layer)
        assert not used[gone].any(), (after.done, name)
        if after.done[-1] != "prune":
            assert torch.equal(masks.live(before.model.get_submodule(name)), ~gone), (after.done, name)


def check_saved(ground: Ground, node: Node, images: Tensor) -> None:
    """The loaded model answers bit for bit as the saved one."""
    folder = ground.folder / "-".join(node.done)
    artifact.save(folder, node.model, node.described)
    loaded, described = artifact.load(folder, task=ground.task)
    assert described.edits == node.described.edits
    with torch.inference_mode():
        assert torch.equal(loaded(images), node.model.eval()(images)), node.done


def check_exported(ground: Ground, node: Node, images: Tensor, answer: Answer) -> None:
    """ONNX Runtime gives torch's answers; a value on the edge between two integers may fall to either side.

    Few do, so answers are near all together, and none is further away than a few steps of a layer lead.
    """
    found = answer(to_onnx(node.model, ground.task.signature()), images.numpy())
    with torch.inference_mode():
        expected = node.model(images).numpy()
    spread = float(expected.std())
    error = np.abs(found - expected) / spread
    together, largest = (0.02, 0.1) if "quantize" in node.done else (1e-5, 1e-4)
    assert np.sqrt(np.mean(error**2)) < together, node.done
    assert error.max() < largest, node.done
