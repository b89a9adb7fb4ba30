"""What single layers cost: one is compressed alone, nothing is trained, and the answers on validation rows compared.

Three costs are kept of each such change, since they serve different choices:

    rise         L(after) − L(before), the task's loss: what guards against harm (``max_loss``)
    divergence   mean KL(p ‖ p̂) of the model's own answers before and after (without labels: mean (z − ẑ)²/Var z);
                 never negative and far less noisy than any metric, and of independent small changes it adds up,
                 so it is what sums over layers go by (Cai et al. 2020, ZeroQ, arXiv:2001.00281, section 3.2)
    drop         what the primary metric loses, with a paired interval: what people read

They are the same on every machine, so they are remembered under ``.slimline/sensitivity/``, by model, data, seed, the
code of model, task and method, and the change. ``slimline sensitivity`` and every choice by sensitivity share them.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from slimline import intervals, manifest, metrics, pipeline, plugins, progress
from slimline.errors import ArtifactError
from slimline.file_index import FILE, FileIndex
from slimline.method import Alone, Context, Method
from slimline.task import Classification, Task

CACHE = Path(".slimline/sensitivity")
FORMAT = 2
BEYOND = 1e9  # stands for a cost that is no number: the answers overflowed


@dataclass(frozen=True)
class Cost:
    """What one change costs; ``answers`` counts rows answered right by both, only before, only after, by neither."""

    rise: float
    divergence: float
    drop: float
    answers: tuple[int, int, int, int]

    def interval(self, confidence: float) -> list[float] | None:
        """Return the drop's interval, paired by row; None where the metric isn't the share of right answers."""
        _, lost, won, _ = self.answers
        if not math.isclose(self.drop, (lost - won) / sum(self.answers), abs_tol=1e-6):
            return None
        before, after = (np.repeat(np.array(kind), self.answers) for kind in ([1, 1, 0, 0], [1, 0, 1, 0]))
        return intervals.paired_drop(before.astype(bool), after.astype(bool), confidence)


class Sensitivity:
    """Costs of single changes to ``model``; each is measured once, and remembered where the context has a ``cache``."""

    def __init__(self, model: nn.Module, context: Context) -> None:
        self._model, self._context = model, context
        self._path: Path | None = None
        self._known: dict[str, Any] = {}
        if context.cache is not None:
            data = [context.validation.digest, context.calibration.digest]
            kinds = {type(context.task), *map(type, model.modules())}
            key = manifest.canonical([_digest(model), data, context.seed, code_version(frozenset(kinds))])
            self._path = context.cache / f"{hashlib.sha256(key).hexdigest()[:32]}.json"
            self._known = remembered(self._path).get("costs", {})

    def cost(self, method: Method, layer: str, alone: Alone) -> Cost:
        """Return what ``alone``, the change that ``method`` makes to ``layer``, costs."""
        key = self._key(method, layer, alone)
        if key not in self._known:
            self._known[key] = asdict(self._measure(alone.make()))
            if self._path is not None:
                manifest.write_json(self._path, {"format": FORMAT, "costs": self._known})
        found = self._known[key]
        return Cost(**{**found, "answers": tuple(found["answers"])})

    def costs(self, changes: dict[Any, tuple[Method, str, Alone]], title: str) -> dict[Any, Cost]:
        """Return the cost of each change, with their count shown."""
        new = [name for name, change in changes.items() if not self.knows(*change)]
        for name in progress.each(new, title, len(new), "trial"):
            self.cost(*changes[name])
        return {name: self.cost(*change) for name, change in changes.items()}

    def knows(self, method: Method, layer: str, alone: Alone) -> bool:
        """Return whether this change has been measured."""
        return self._key(method, layer, alone) in self._known

    def rise(self, changed: nn.Module) -> float:
        """Return how far the loss of any changed model lies above this one's; it isn't remembered."""
        return self._measure(changed).rise

    def _key(self, method: Method, layer: str, alone: Alone) -> str:
        kind = type(method)
        code = code_version(frozenset({kind})) if self._path is not None else ""
        strength = manifest.canonical(alone.strength).decode()
        return f"{layer} {kind.__module__}:{kind.__qualname__} {strength} {code}".rstrip()

    @cached_property
    def _own(self) -> NDArray[np.float32]:
        return metrics.outputs(self._model, self._context.validation)

    @torch.no_grad()
    def _measure(self, changed: nn.Module) -> Cost:
        task, targets = self._context.task, self._context.validation.targets
        before, after = self._own, metrics.outputs(changed, self._context.validation)
        y = torch.from_numpy(np.ascontiguousarray(targets))
        losses = [float(task.loss(torch.from_numpy(out), y)) for out in (before, after)]
        right, still = (task.correct(task.answer(out), targets) for out in (before, after))
        sign = 1 if task.higher_is_better else -1
        values = [task.metrics(out, targets)[task.primary] for out in (before, after)]
        counts = [int(np.sum(each)) for each in (right & still, right & ~still, ~right & still, ~right & ~still)]
        return Cost(
            rise=_finite(losses[1] - losses[0]),
            divergence=_finite(divergence(task, before, after)),
            drop=_finite(sign * (values[0] - values[1])),
            answers=(counts[0], counts[1], counts[2], counts[3]),
        )


def divergence(task: Task, before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return how far answers ``after`` lie from those ``before``: KL of classes, else the scaled squared distance."""
    a, b = torch.from_numpy(before).double(), torch.from_numpy(after).double()
    if isinstance(task, Classification):
        log_a, log_b = F.log_softmax(a, dim=-1).flatten(0, -2), F.log_softmax(b, dim=-1).flatten(0, -2)
        return max(0.0, float(F.kl_div(log_b, log_a, reduction="batchmean", log_target=True)))
    return float((a - b).square().mean() / a.var().clamp(min=1e-12))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else BEYOND


def _digest(model: nn.Module) -> str:
    """Return the sha256 of a model's structure and of all its tensors."""
    total = hashlib.sha256(repr(model).encode())
    for name, tensor in model.state_dict().items():
        total.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


@cache
def code_version(kinds: frozenset[type]) -> str:
    """Return a hash of the source that these classes and this module run: Slimline's and that of plug-ins and projects.

    Of any other installed package its version counts: reading transformers takes a minute.
    """
    modules = {kind.__module__ for kind in kinds} - {"builtins", "__main__"}
    installed = {name for name in modules if _is_installed(name)}
    own = modules - installed | {__name__}
    index = FileIndex(FILE)  # as the fingerprints left it: what is unchanged since isn't read again
    found = pipeline.closure(own, _packages(own), index)
    found |= {name: str(getattr(sys.modules[name], "__version__", "")) for name in _packages(installed)}
    return hashlib.sha256(manifest.canonical(found)).hexdigest()[:16]


def _is_installed(module: str) -> bool:
    """Return whether a module that is loaded came with a package that is no plug-in's."""
    package = module.partition(".")[0]
    if package in {"slimline", *_packages(offer.target for offer in plugins.offers())}:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _packages(modules: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def remembered(path: Path) -> dict[str, Any]:
    """Return what a file of this format holds; a missing, older or damaged one costs time, nothing else."""
    try:
        document = manifest.read_json(path) if path.is_file() else {}
    except ArtifactError:
        return {}
    return document if isinstance(document, dict) and document.get("format") == FORMAT else {}
