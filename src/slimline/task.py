"""What a model is for: data splits, loss, metrics, and when an answer is right. Nothing downstream assumes accuracy."""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from slimline import plugins, preprocess
from slimline.errors import DataError

CHUNK = 4096
BATCH = 500  # rows of which outputs are found at once,
POSITIONS = 2**12  # and their positions, where rows have several lengths: more leave a processor's cache
SPLITS = ("train", "validation", "calibration", "test")
Rows = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of one split: ``inputs`` {name: array N×…}, ``targets`` (N first), and the ``groups`` that tie rows.

    ``padding`` (input, value): rows of that input are filled up with the value to one length. A batch is cut to its
    longest row, in every input of that length.
    """

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[Any]
    groups: NDArray[Any] | None = None
    padding: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        for name, array in self.inputs.items():
            if len(array) != len(self.targets):
                raise DataError(f"input {name!r} has {len(array)} rows, the targets have {len(self.targets)}")

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: Rows) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        inputs = {name: array[rows] for name, array in self.inputs.items()}
        if self.padding is not None:
            name, value = self.padding
            width = inputs[name].shape[1]
            longest = int(_lengths(inputs[name], value).max(initial=1))
            inputs = {
                each: array[:, :longest] if array.shape[1:2] == (width,) else array for each, array in inputs.items()
            }
        return inputs, self.targets[rows]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How long each row is without the padding at its end, 1 at least. Only rows of several lengths have any."""
        assert self.padding is not None  # noqa: S101
        name, fill = self.padding
        parts = (self.inputs[name][at : at + CHUNK] for at in range(0, len(self), CHUNK))
        return np.concatenate([_lengths(part, fill) for part in parts])

    def outputs(self, run: Callable[[dict[str, NDArray[Any]]], NDArray[Any]], at_once: int = 1) -> NDArray[Any]:
        """Return what ``run`` gives for every row, N first; ``at_once`` threads call it.

        Rows of several lengths go together with others as long, so that next to nothing is filled up.
        """
        batches = list(self.batches(BATCH))
        if at_once > 1:
            with ThreadPoolExecutor(at_once) as pool:
                found = np.concatenate(list(pool.map(lambda rows: run(self[rows][0]), batches)))
        else:
            found = np.concatenate([run(self[rows][0]) for rows in batches])
        if self.padding is None:
            return found
        ordered = np.empty_like(found)
        ordered[np.concatenate(batches)] = found
        return ordered

    def batches(self, rows: int) -> Iterator[Any]:
        """Yield which rows go together, ``rows`` at most: in their order, or the shortest first."""
        if self.padding is None:
            yield from (slice(at, at + rows) for at in range(0, len(self), rows))
            return
        lengths = self.lengths
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            widths = lengths[order[start : start + rows]]  # ascending
            fits = np.flatnonzero(widths * np.arange(1, len(widths) + 1) <= POSITIONS)
            end = start + (int(fits[-1]) + 1 if len(fits) else 1)
            yield order[start:end]
            start = end

    def real(self, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return which positions of a batch aren't padding [N × length], None where rows have none."""
        if self.padding is None:
            return None
        name, fill = self.padding
        return inputs[name] != fill

    def head(self, count: int | None) -> Split:
        """Return ``count`` rows evenly spread over the split (all of them when ``count`` is None or more)."""
        if count is None or count >= len(self):
            return self
        rows = spread(len(self), count)
        inputs = {name: array[rows] for name, array in self.inputs.items()}
        return Split(inputs, self.targets[rows], self.groups[rows] if self.groups is not None else None, self.padding)

    @cached_property
    def digest(self) -> str:
        """sha256 over names, shapes and bytes: what the teacher's cached answers and resumed training hang on."""
        total = hashlib.sha256()
        for name, array in [*sorted(self.inputs.items()), ("", self.targets)]:
            total.update(f"{name}{array.dtype}{array.shape}".encode())
            for start in range(0, len(array), CHUNK):  # rows may be on disk, more of them than memory holds
                total.update(np.ascontiguousarray(array[start : start + CHUNK]).data)
        return total.hexdigest()


def _lengths(rows: NDArray[Any], fill: int) -> NDArray[np.int64]:
    """Return how many entries of each row there are up to the last that isn't ``fill``; 1 where there is none."""
    real = rows != fill
    found: NDArray[np.int64] = np.where(real.any(1), real.shape[1] - real[:, ::-1].argmax(1), 1)
    return found


class Task(ABC):
    """Subclass this in a plug-in. ``args`` from params.yaml are the keyword arguments of the constructor.

    ``primary`` names the metric that choices and early stopping follow; ``higher_is_better`` is its direction.
    """

    primary: str = "accuracy"
    higher_is_better: bool = True
    labels: Sequence[str] | None = None
    independent: bool = False  # whether any of the labels may hold at once
    numeric: bool = False  # whether outputs are numbers to be met, not scores of labels
    unit: float = 1.0  # of numbers: what their errors are counted in, in losses
    centre: float = 0.0  # of numbers: what a new last layer starts from
    decides: bool = False  # whether validation outputs teach how an export's outputs become answers
    augment_draws: int = 0
    notes: Sequence[str] = ()  # what ``slimline check`` says of the data, known once the splits are

    @abstractmethod
    def splits(self) -> dict[str, Split]:
        """Return train, validation, calibration and test: disjoint, and no group straddles two of them."""

    @abstractmethod
    def signature(self) -> dict[str, Any]:
        """Return signature.json: ``inputs`` and ``outputs``, each with name, dtype and shape (batch axis by name).

        An input may have a ``range`` [least, largest] of its numbers: others are refused before the model sees them.
        """

    @abstractmethod
    def preprocess(self) -> dict[str, Any]:
        """Return preprocess.json: the steps from a raw input to the model's input."""

    @abstractmethod
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of outputs against targets, a scalar."""

    def smoothed_loss(self, out: Tensor, y: Tensor, smoothing: float) -> Tensor:
        """Return ``loss`` with the share ``smoothing`` of each label spread evenly over all; optional."""
        raise NotImplementedError

    @property
    def smooths(self) -> bool:
        """Whether ``smoothed_loss`` is that of ``loss``: a class that changes one has to change the other."""
        kinds = type(self).__mro__
        smoothed, loss = (next(kind for kind in kinds if name in vars(kind)) for name in ("smoothed_loss", "loss"))
        return smoothed is not Task and kinds.index(smoothed) <= kinds.index(loss)

    @abstractmethod
    def metrics(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        """Return {metric: value} of raw model outputs (N first) against targets; ``primary`` is among them."""

    @abstractmethod
    def answer(self, out: NDArray[Any]) -> NDArray[Any]:
        """Return the answer that each row of raw outputs stands for (a class index, a value, …)."""

    @abstractmethod
    def correct(self, answer: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        """Return, per row, whether the answer is right."""

    @abstractmethod
    def agree(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        """Return, per row, whether two answers are the same."""

    def build_model(self, name: str, **args: Any) -> nn.Module:
        """Build a fresh, untrained model by plug-in name. Never downloads."""
        model: nn.Module = plugins.find("models", name, where="params.yaml: model.name")(**args)
        return model

    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        """Return randomly changed inputs; ``draws`` (rows × ``augment_draws``, in [0, 1)) is all the chance there is.

        A view of the training set is a function of (seed, view, row), whatever the batch: that makes epochs
        repeatable and the teacher's answers to a view cacheable.
        """
        del draws
        return inputs

    def baselines(self, limit: int | None = None) -> dict[str, dict[str, Any]]:
        """Return what simpler models reach on the test split: {name: metrics, ``bytes``, ``latency_ms``}; optional.

        They see of each split what networks see: ``split.head(limit)``.
        """
        del limit
        return {}

    def probabilities(self, out: NDArray[Any]) -> NDArray[np.float32]:
        """Return what a served prediction shows as ``probabilities``: one column a label."""
        return np.asarray(out, dtype=np.float32)

    def decision(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, Any]:
        """Return what an export's signature says beside ``signature()``, by its outputs on validation rows.

        Asked for where ``decides`` is set, of each exported stage: other outputs are calibrated in another way.
        """
        del out, y
        return {}

    def decided(self, out: NDArray[Any], signature: Mapping[str, Any]) -> NDArray[Any]:
        """Return an export's outputs such that ``answer`` and ``metrics`` go by the decision in its signature."""
        del signature
        return out

    def inputs_of(self, raw: Sequence[Any]) -> dict[str, NDArray[Any]]:
        """Run this task's own preprocessing steps on raw values."""
        return preprocess.run(self.preprocess(), raw, trust=None)  # the user's own task names its own steps

    def higher_is_better_of(self, metric: str) -> bool:
        """Return the direction of a metric: the primary's own, and up for the others unless a task says otherwise."""
        return self.higher_is_better if metric == self.primary else True

    def better(self, a: float, b: float) -> bool:
        """Return whether primary metric value ``a`` beats ``b``."""
        return a > b if self.higher_is_better else a < b


class Classification(Task):
    """Single-label classification: cross-entropy, accuracy and macro-F1 over ``labels``."""

    labels: Sequence[str] = ()
    metric_names: Sequence[str] = ("accuracy", "macro-f1")

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y)

    def smoothed_loss(self, out: Tensor, y: Tensor, smoothing: float) -> Tensor:
        return F.cross_entropy(out, y, label_smoothing=smoothing)

    def higher_is_better_of(self, metric: str) -> bool:
        names = {name.replace("-", "_"): name for name in self.metric_names}
        if metric not in names or metric == self.primary:
            return super().higher_is_better_of(metric)
        return bool(getattr(plugins.find("metrics", names[metric]), "higher_is_better", True))

    def metrics(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        values = {}
        for name in self.metric_names:
            metric = plugins.find("metrics", name)()
            values[name.replace("-", "_")] = float(metric(self.answer(out), y))
        return values

    def answer(self, out: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.asarray(out).argmax(axis=-1))

    def correct(self, answer: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(answer == y)

    def agree(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(a == b)

    def probabilities(self, out: NDArray[Any]) -> NDArray[np.float32]:
        shifted = np.exp(out - out.max(axis=-1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def cut(targets: NDArray[Any], sizes: Mapping[str, int], seed: int) -> dict[str, NDArray[np.int64]]:
    """Cut rows into named, disjoint parts with the classes balanced as in the whole; the first part takes the rest.

    Rows of each class are shuffled by ``seed`` and dealt in proportion. Returns sorted row numbers by name.
    """
    names = list(sizes)
    rng = np.random.default_rng(seed)
    parts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names}
    for label in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(targets == label))
        start = 0
        for name in names[1:]:
            count = round(sizes[name] * len(rows) / len(targets))
            parts[name].append(rows[start : start + count])
            start += count
        parts[names[0]].append(rows[start:])
    return {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}


def spread(total: int, count: int | None) -> NDArray[np.int64]:
    """Return the numbers of ``count`` rows evenly spread over ``total`` (all when ``count`` is None or more)."""
    if count is None or count >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, count).astype(np.int64)


def tensors(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return the arrays as tensors, without copying where numpy allows it."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}


def call(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Run ``model`` on named inputs: a single one goes by position, several go by keyword, or as the one dict that its
    ``forward`` takes.
    """
    if len(inputs) == 1:
        out: Tensor = model(*inputs.values())
    elif takes_dict(type(_bare(model)).forward, tuple(inputs)):
        out = model(dict(inputs))
    else:
        out = model(**inputs)
    return out


def _bare(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model  # its own forward takes anything


@cache
def takes_dict(forward: Any, names: tuple[str, ...]) -> bool:
    """Return whether a class's ``forward`` has one parameter for all of these inputs."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    needed = [each for each in parameters if each.default is each.empty]
    return (
        len(needed) == 1
        and needed[0].kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        and not {each.name for each in parameters} & set(names)
    )
