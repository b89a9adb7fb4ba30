"""The weighted sum of losses that a training follows, with the features and regressors that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimline.errors import ParamsError, TrainingError
from slimline.task import Split, Task, call, tensors
from slimline.training.features import captured, example_features, find_layer
from slimline.training.losses.contract import FeatureLoss, TokenLoss, needs

Loss = Callable[[Task, Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class Term:
    """One loss of the sum; ``where`` is its file and key, for errors."""

    loss: Any
    weight: float = 1.0
    where: str = "loss"

    @property
    def needs_labels(self) -> bool:
        return "labels" in (needs(self.loss) or ())

    @property
    def reads_outputs(self) -> bool:
        """Whether the teacher's outputs are wanted, which are cached."""
        if isinstance(self.loss, FeatureLoss):
            return not self.loss.layers
        said = needs(self.loss)
        return said is None or "teacher" in said


def check_terms(terms: Sequence[Term], task: Task, *, taught: bool, mixup: float, where: str) -> None:
    """Raise ParamsError where a loss misses its teacher or fits no such task, TrainingError where mixup leaves none.

    ``where`` is the file and key of the training's settings.
    """
    if mixup and not taught:
        raise TrainingError(f"{where}.mixup: blended rows have no label; it takes a teacher (or set mixup: 0)")
    if mixup and all(term.needs_labels for term in terms):
        raise TrainingError(
            f"{where}.mixup: blended rows have no label, and every loss here needs one: add 'soft' (or set mixup: 0)"
        )
    for term in terms:
        if not taught and "teacher" in (needs(term.loss) or ()):
            raise ParamsError(f"{term.where}: {type(term.loss).__name__} learns from a teacher, and none is named")
        if hasattr(term.loss, "check") and (taught or not term.reads_outputs):  # else it is the task's own loss
            term.loss.check(task, term.where)


class Objective:
    """Σ weight · loss over one batch after another. ``regressors`` are its own weights, trained along.

    With several teachers a loss on outputs is the mean over them; of ``soft`` that has the gradient of KL against the
    mean of their probabilities at T. A loss on layers follows ``teacher``, the first one.
    """

    def __init__(
        self, terms: Sequence[Term], task: Task, student: nn.Module, teacher: nn.Module | None, rows: Split, seed: int
    ) -> None:
        """Find every layer in both models, run two of ``rows`` through, and build the regressors from ``seed``."""
        self.terms = terms
        self.task = task
        self.student = student
        self.regressors = nn.ModuleList()
        self.reads_outputs = any(term.reads_outputs for term in terms)
        self._adapters: list[list[nn.Module]] = [[] for _ in terms]
        self._pairs: list[list[tuple[str, str]]] = [[] for _ in terms]
        self._rows = rows
        self._teacher = teacher
        self._guided: dict[str, str] = {}
        self._hints: dict[str, str] = {}
        for term in terms:
            for guided, hint in term.loss.layers.items() if isinstance(term.loss, FeatureLoss) else ():
                find_layer(student, guided, "the student", f"{term.where}.layers")
                find_layer(self._live, hint, "the teacher", f"{term.where}.layers")
        if any(isinstance(term.loss, FeatureLoss) and term.loss.layers for term in terms):
            self._build(rows, seed)

    @property
    def _live(self) -> nn.Module:
        if self._teacher is None:
            raise ParamsError("a loss on layers needs a teacher")
        return self._teacher

    def _build(self, rows: Split, seed: int) -> None:
        device = next(self.student.parameters()).device
        self._live.to(device)
        inputs = {name: value.to(device) for name, value in tensors(rows[slice(0, 2)][0]).items()}
        self._pairs = [self._paired(term, inputs) for term in self.terms]
        guided = example_features(self.student, self._guided, inputs, "the student")
        hints = example_features(self._live, self._hints, inputs, "the teacher")
        for term, adapters, pairs in zip(self.terms, self._adapters, self._pairs, strict=True):
            if not pairs:
                continue
            for ours, theirs in pairs:
                student, teacher = guided[ours].float(), hints[theirs].float()
                try:
                    with torch.random.fork_rng(devices=[]):
                        torch.manual_seed(seed)
                        adapters.append(term.loss.adapter(student, teacher).to(device))
                except ValueError as error:
                    raise ParamsError(f"{term.where}.layers: {ours} and {theirs} give {error}") from error
            self.regressors.extend(adapters)
            try:
                with torch.no_grad():
                    self._compare(term, adapters, pairs, guided, hints, rows.real(inputs))
            except (RuntimeError, ValueError) as error:
                raise ParamsError(f"{term.where}.layers: {' '.join(str(error).split())}") from error

    def _paired(self, term: Term, inputs: dict[str, Tensor]) -> list[tuple[str, str]]:
        """Return the pairs of layers that a loss compares, and note each with the file and key that names it."""
        found = []
        where = f"{term.where}.layers"
        for ours, theirs in term.loss.layers.items() if isinstance(term.loss, FeatureLoss) else ():
            sides = []
            for model, name, whose in ((self.student, ours, "the student"), (self._live, theirs, "the teacher")):
                try:
                    sides.append(term.loss.parts(model, name, inputs))
                except ValueError as error:
                    raise ParamsError(f"{where}: {name!r} of {whose} {error}") from error
            if len(sides[0]) != len(sides[1]):
                raise ParamsError(
                    f"{where}: {ours!r} of the student is {len(sides[0])} layers to compare, {theirs!r} of the teacher "
                    f"{len(sides[1])}; name layers that pair up"
                )
            for guided, hint in zip(*sides, strict=True):
                self._guided.setdefault(guided, where)
                self._hints.setdefault(hint, where)
                found.append((guided, hint))
        return found

    def __call__(
        self, model: nn.Module, inputs: dict[str, Tensor], y: Tensor | None, answers: Sequence[Tensor]
    ) -> Tensor:
        """Run ``model`` (the student, wrapped or not) on a batch and return the loss, a scalar.

        ``y`` is None for blended rows; ``answers`` are the teachers' outputs, if ``reads_outputs``.
        """
        hints = self._ask(inputs)
        with captured(self.student, self._guided) as guided:
            out = call(model, inputs)
        out = out if out.dtype == torch.float64 else out.float()
        values = []
        real = self._rows.real(inputs)
        for term, adapters, pairs in zip(self.terms, self._adapters, self._pairs, strict=True):
            if y is None and term.needs_labels:
                continue
            if pairs:
                values.append(term.weight * self._compare(term, adapters, pairs, guided, hints, real))
            else:
                values.append(term.weight * self._answer(term, out, y, answers))
        return sum(values[1:], values[0])

    def of_outputs(self, out: Tensor, y: Tensor, answers: Sequence[Tensor]) -> float:
        """Return the sum of the losses on outputs, or the task's own where there are none."""
        pairs = zip(self.terms, self._pairs, strict=True)
        values = [term.weight * self._answer(term, out, y, answers) for term, layers in pairs if not layers]
        return float(sum(values)) if values else float(self.task.loss(out, y))

    def _ask(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the teacher on a batch for the features that losses ask for."""
        if not self._hints:
            return {}
        kind = next(iter(inputs.values())).device.type
        with torch.no_grad(), torch.autocast(kind, enabled=False), captured(self._live, self._hints) as hints:
            call(self._live, inputs)
        return hints

    @staticmethod
    def _compare(
        term: Term,
        adapters: list[nn.Module],
        names: list[tuple[str, str]],
        guided: dict[str, Tensor],
        hints: dict[str, Tensor],
        real: Tensor | None,
    ) -> Tensor:
        kind = next(iter(hints.values())).device.type
        with torch.autocast(kind, enabled=False):
            pairs = [
                (adapter(guided[ours].float()), hints[theirs].float())
                for (ours, theirs), adapter in zip(names, adapters, strict=True)
            ]
            value: Tensor = term.loss(pairs, real) if isinstance(term.loss, TokenLoss) else term.loss(pairs)
        return value

    def _answer(self, term: Term, out: Tensor, y: Tensor | None, answers: Sequence[Tensor]) -> Tensor:
        """Return a loss on outputs, the mean over the teachers."""
        said = needs(term.loss)
        y = y if said is None or "labels" in said else None
        heard: Sequence[Tensor | None] = answers if term.reads_outputs and answers else [None]
        if isinstance(term.loss, FeatureLoss):
            values = [term.loss([(out, answer)]) for answer in answers]
        else:
            values = [term.loss(self.task, out, y, answer) for answer in heard]
        value: Tensor = sum(values[1:], values[0])
        return value / len(values) if len(values) > 1 else value
