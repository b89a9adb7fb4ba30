"""All 24 orders of distill, prune, quantize and factorize, as a tree of prefixes: each step is done once.

After every step the model is saved and loaded (bit-equal outputs); what earlier steps did must still hold. Exporting
takes nearly all of the time, so each variant says how much of it is exported and run in ONNX Runtime.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline import artifact
from slimline.artifact import Artifact
from slimline.export.onnx import to_onnx
from slimline.factorization.ranks import Ratio
from slimline.method import Batches, Context, Method, compress
from slimline.methods.float16 import Float16
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.methods.n_m import NM
from slimline.methods.structured import Structured
from slimline.methods.svd import Svd
from slimline.methods.symmetric import Symmetric
from slimline.methods.tucker2 import Tucker2
from slimline.models.cnn import Cnn
from slimline.params import Training
from slimline.pruning import masks
from slimline.quantization.keys import Override
from slimline.quantization.quantizers import quantizers
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import State, fit
from slimline.training.losses import SoftTargets
from slimline.training.teacher_cache import TeacherCache

STEPS = ("distill", "prune", "quantize", "factorize")
LAYERS = ("0", "3", "6", "11")
OWN = {"3*": Override(weight_bits=6), "6*": Override(activation_bits=7), "11*": Override(weight_bits=7)}
BITS = {"0": (8, 8), "3": (6, 8), "6": (8, 7), "11": (7, 8)}  # of weights and inputs
Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Variant:
    """The methods of the steps, the layers that ``factorize`` takes, and what each layer's quantizers must be.

    ``schemes`` are those of weights and inputs. After prune half of each layer's weights are zero but for those of
    ``whole``. ``exported``: a model after every step, one of every order, or one in all.
    """

    quantize: Method
    exported: Literal["steps", "orders", "one"]
    schemes: tuple[str, str | None] = ("symmetric", "linear")
    bits: dict[str, tuple[int, int]] = field(default_factory=lambda: BITS)
    learned: bool = False
    block: int | None = None  # of layer 6's weights
    prune: tuple[Method, ...] = (Structured("l2", ratio=0.3, multiple=2), Magnitude(ratio=0.5, scope="layer"))
    whole: tuple[str, ...] = ()
    factorize: Method = Svd(rank=Ratio(0.4), multiple=1)  # noqa: RUF009  (methods are frozen)
    factorized: tuple[str, ...] = ("11",)

    def methods(self, name: str) -> tuple[Method, ...]:
        return {"prune": self.prune, "quantize": (self.quantize,), "factorize": (self.factorize,)}[name]


VARIANTS = {
    "linear": Variant(Linear(layers=OWN), "steps"),
    "learned": Variant(
        Symmetric(layers=OWN, learned_steps=True, equalize=True, bias_correction=True), "orders",
        schemes=("symmetric", "symmetric"), learned=True,
    ),
    "float16": Variant(Float16(), "orders", schemes=("float16", None), bits=dict.fromkeys(LAYERS, (16, 32))),
    "blocks": Variant(
        Linear(weight_bits=4, granularity="block", block=4, layers={"11*": Override(weight_bits=6)}), "one",
        bits={**dict.fromkeys(LAYERS, (4, 8)), "11": (6, 8)}, block=4,
    ),
    "tucker2": Variant(
        Linear(layers=OWN), "one", factorize=Tucker2(rank=Ratio(0.4), multiple=1), factorized=("0", "3", "6"),
    ),
    "n-m": Variant(
        Linear(layers=OWN), "one", prune=(Structured("l2", ratio=0.3, multiple=4), NM(2, 4)), whole=("0",),
    ),
}  # fmt: skip


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
    variant: Variant


@pytest.fixture(params=VARIANTS)
def ground(
    request: pytest.FixtureRequest, task: Digits, splits: dict[str, Split], batches: Batches,
    context: Callable[..., Context], cnn: Cnn, tmp_path: Path,
) -> Ground:  # fmt: skip
    """The digits task, its teacher, a folder for artifacts, and each variant."""
    return Ground(task, splits, batches, context, copy.deepcopy(cnn), tmp_path, VARIANTS[request.param])


def step(ground: Ground, node: Node, name: str) -> Node:
    """Do one step; distill trains the model itself for an epoch on soft targets."""
    done = (*node.done, name)
    if name != "distill":
        model, edits = node.model, list(node.described.edits)
        for method in ground.variant.methods(name):
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


def parts(model: nn.Module, name: str) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return a layer that was there at the start, or its factors, by name."""
    found = model.get_submodule(name).named_modules(prefix=name)
    return {each: layer for each, layer in found if isinstance(layer, nn.Conv2d | nn.Linear)}


def widths(model: nn.Module) -> list[int]:
    """Return the output width of each layer that was there at the start (factors count as their layer)."""
    return [list(parts(model, name).values())[-1].weight.shape[0] for name in LAYERS]


@pytest.mark.parametrize("first", STEPS)
def test_every_order(
    first: str, ground: Ground, described: dict[str, Artifact], images: Tensor, answer: Answer
) -> None:
    start = Node((), copy.deepcopy(ground.teacher).eval(), described["cnn"])
    root = step(ground, start, first)
    exported, orders = ground.variant.exported, 0
    for before, after in [(start, root), *tree(ground, root)]:
        check_kept(ground.variant, before, after)
        check_saved(ground, after, images)
        whole = len(after.done) == len(STEPS)
        if exported == "steps" or (whole and (exported == "orders" or (first == "prune" and not orders))):
            check_exported(ground, after, images, answer)
        orders += whole
    assert orders == 6


def check_kept(variant: Variant, before: Node, after: Node) -> None:
    """What a step did holds after the next one: widths, zeros, quantizers, factors."""
    check_zeros(variant, before, after)
    now = after.done[-1]
    assert (widths(after.model) == widths(before.model)) is (now != "prune"), after.done
    assert bool(quantizers(after.model)) is ("quantize" in after.done), after.done
    sequences = tuple(name for name in LAYERS if len(parts(after.model, name)) > 1)
    assert sequences == (variant.factorized if "factorize" in after.done else ()), after.done
    if "quantize" in after.done:
        check_quantizers(variant, after)


def check_quantizers(variant: Variant, node: Node) -> None:
    """Each layer, pruned or not, and each of its factors, has quantizers of the layer's own width and scheme."""
    found = quantizers(node.model)
    for layer, bits in variant.bits.items():
        for name in parts(node.model, layer):
            for side, scheme, width in zip(("weight", "input"), variant.schemes, bits, strict=True):
                quantizer = found.pop(f"{name}.{side}_quantizer", None)
                if scheme is None:
                    assert quantizer is None, (node.done, name)
                    continue
                assert quantizer is not None, (node.done, name, side)
                spec = quantizer.spec
                assert (spec.bits, spec.scheme, spec.learned) == (width, scheme, variant.learned), (node.done, name)
                assert torch.isfinite(quantizer.scale).all()
                assert (quantizer.scale > 0).all()
    assert found.keys() <= {"9.input_quantizer"}, node.done  # what the pooling reads
    weights = [quantizers(node.model)[f"{name}.weight_quantizer"] for name in parts(node.model, "6")]
    assert {each.spec.block for each in weights} == {variant.block}, node.done


def check_zeros(variant: Variant, before: Node, after: Node) -> None:
    """Half of the weights are zero from prune on, the same ones, in what layers multiply by too; factors are dense."""
    if "prune" not in after.done:
        assert not masks.masked(after.model), after.done
        return
    since = after.done[after.done.index("prune") :]
    dense = [*variant.whole, *(variant.factorized if "factorize" in since else ())]
    zeroed = [name for layer in LAYERS if layer not in dense for name in parts(after.model, layer)]
    assert zeroed == list(masks.masked(after.model)), after.done
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
