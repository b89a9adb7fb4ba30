"""The contract of a compression method, and the records that pass between methods, artifacts and stages.

A method is a frozen dataclass whose fields are its params.yaml keys. It decides in ``plan`` and changes structure in
``apply``; compressing is apply + loading the plan's tensors, loading an artifact is apply alone (replay) + its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.layers import sharing

if TYPE_CHECKING:
    from slimline.decisions import Decisions
    from slimline.params import Target
    from slimline.task import Split, Task

VERSION = 1


@dataclass(frozen=True)
class Edit:
    """One structural change, as JSON data: kept indices, ranks, quantizer specs. Tensors live beside it."""

    method: str
    data: dict[str, Any]
    version: int = VERSION


@dataclass(frozen=True)
class Plan:
    """What a method decided: the edit, and the tensors (by state-dict name) to load after applying it.

    ``notes`` are lines for the report: what was decided for each layer and why.
    """

    edit: Edit
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Context:
    """What a method may look at when it plans. ``where`` is the file and key of its settings, for errors.

    ``cache`` is the folder in which ``slimline.sensitivity`` remembers what single layers cost (None: nowhere).
    ``train`` are the rows for methods that learn what to choose (None: those of ``task``).
    """

    task: Task
    calibration: Split
    validation: Split
    target: Target
    decisions: Decisions
    seed: int = 0
    where: str = "params.yaml"
    cache: Path | None = None
    train: Split | None = None


@dataclass(frozen=True)
class Alone:
    """A method at work on one layer, or one group of coupled layers, and on nothing else.

    ``strength`` is all that the result hangs on beside model, data and layer, as JSON data. ``make()`` returns the
    changed copy of the model. ``layers`` are those whose time on the target changes with it.
    """

    strength: dict[str, Any]
    make: Callable[[], nn.Module]
    layers: tuple[str, ...]


Batch = tuple[dict[str, Tensor], Tensor]
Batches = Callable[[], Iterable[Batch]]


class Method:
    """Subclass this as ``@dataclass(frozen=True)`` in a plug-in, and run ``slimline.testing.check_method`` on it."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        """Decide from the model, calibration data (``batches()`` starts over) and measurement; change nothing."""
        raise NotImplementedError

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        """Change the structure as ``edit`` says, in place where possible, and return the model. Reads no data."""
        raise NotImplementedError

    def check(self, where: str) -> None:
        """Raise MethodError where keys contradict each other; ``where`` is the file and key of the method's settings.

        ``slimline check`` calls it before anything trains, what it says needs no model.
        """
        del where

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        """Raise MethodError where keys don't fit the model, a glob that matches no layer, say; optional.

        ``slimline check`` calls it before anything trains, where it is known by then which layers the model will have:
        weights may be any, and widths those before an earlier pruning. The stage calls it before ``plan``.
        """
        del model, batches, context

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module | None:
        """Return a model with the layers, by name and kind, that this method will leave of ``model``; optional.

        None: only ``plan`` knows. ``slimline check`` holds the methods behind this one against it.
        """
        del model, batches, context
        return None

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        """Return, for each layer that the method takes, how it compresses that one alone; optional.

        It measures nothing: what is costly happens in ``make``. ``slimline sensitivity`` and choices by sensitivity
        ask for it.
        """
        del model, batches, context
        return {}

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return a scalar that joins the loss, or None."""
        del model
        return None

    def constrain(self, model: nn.Module, step: int, total: int) -> None:
        """Restore what must hold, after optimizer step ``step`` of ``total``."""
        del model, step, total

    def settled(self, step: int, total: int) -> bool:
        """Return whether the model is what it shall be as of ``step`` of ``total``: a schedule still on its way is not.

        Epochs that end unsettled are never kept as the best. True at the last step at the latest; settled(0, 0) says
        whether the method can do without training.
        """
        del step, total
        return True


def check_kind(method: object, name: str, where: str) -> None:
    """Raise MethodError where a plug-in whose settings stand at ``where`` is no method."""
    if not isinstance(method, Method):
        raise MethodError(
            f"{where}.name: {name!r} is no method: a dataclass that extends slimline.method.Method is expected"
        )


def check_without_training(method: Method, name: str, where: str) -> None:
    """Raise MethodError where a method, whose settings stand at ``where``, can't do without a training."""
    if not method.settled(0, 0):
        raise MethodError(f"{where}: {name} needs training; give recovery epochs")


def check_ratio(ratio: float, max_ratio: float, where: str) -> None:
    """Raise MethodError where the share that is to go is more than any part may lose."""
    if ratio > max_ratio:
        raise MethodError(f"{where}.ratio: {ratio} is above max_ratio, {max_ratio}; raise that")


def check_rows(batches: Batches, where: str) -> None:
    """Raise MethodError where the calibration split has no rows."""
    if next(iter(batches()), None) is None:
        raise MethodError(f"{where}: the calibration split has no rows")


def compress(
    method: Method, model: nn.Module, batches: Batches, context: Context, *, share: bool = False
) -> tuple[nn.Module, Plan]:
    """Plan on ``model`` and return a compressed copy with the plan. Raises MethodError when ``batches`` has none.

    With ``share`` the copy holds the model's own numbers where they stay: it is for reading.
    """
    check_rows(batches, context.where)
    plan = method.plan(model, batches, context)
    compressed = method.apply(sharing(model) if share else copy.deepcopy(model), plan.edit)
    if share:
        _unshare(compressed, model, plan.tensors)
    load_tensors(compressed, plan.tensors)
    return compressed, plan


def _unshare(copied: nn.Module, model: nn.Module, names: Iterable[str]) -> None:
    """Give tensors of these names that lie over the model's numbers their own."""
    lent = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    own = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    for name in set(names) & set(own):
        if own[name].untyped_storage().data_ptr() in lent:
            own[name].data = own[name].data.clone()


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` into the model's state of the same names. Raises MethodError on an unknown name or shape."""
    state = model.state_dict()
    for name, tensor in tensors.items():
        if name not in state or state[name].shape != tensor.shape:
            found = list(state[name].shape) if name in state else "no such tensor"
            raise MethodError(f"tensor {name}: the plan has shape {list(tensor.shape)}, the model {found}")
        state[name].copy_(tensor)
