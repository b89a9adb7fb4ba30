"""What the methods that make a transformer narrower share: their keys, scores, and how many parts of a layer stay."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.layers import sharing
from slimline.method import Alone, Batches, Context, Edit, Method, Plan, check_ratio
from slimline.params import Count
from slimline.pruning import encoder_parts, importances, movement
from slimline.pruning.channels import Group, keep_channels, slice_model
from slimline.pruning.importances import OfParts
from slimline.pruning.widths import Limits, above_threshold
from slimline.quantization.quantizers import plain


@dataclass(frozen=True)
class EncoderPruning(Method):
    """``ratio`` of the parts go, those of the lowest ``importance`` (``slimline.pruning.importances``).

    ``scope``: of all layers together (``global``) or the same share of each (``layer``). A layer keeps a multiple of
    ``multiple`` and loses no more than ``max_ratio``. ``importance: movement`` (``movement.py``) fine-tunes a
    copy for ``steps`` (200) at ``lr`` (1e-4).
    """

    importance: OfParts = "taylor"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    scope: Literal["global", "layer"] = "global"
    multiple: Annotated[int, Field(ge=1)] = 1
    max_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    steps: Count | None = None
    lr: Annotated[float, Field(gt=0)] | None = None

    name: ClassVar[str]
    parts: ClassVar[str]

    def groups(self, model: nn.Module, inputs: dict[str, Tensor]) -> list[Group]:
        """Return the parts of a plain model, a group a layer."""
        raise NotImplementedError

    def check(self, where: str) -> None:
        for key, value in {"steps": self.steps, "lr": self.lr}.items():
            if value is not None and self.importance != "movement":
                raise MethodError(f"{where}.{key}: it is read with importance: movement, not {self.importance}")
        check_ratio(self.ratio, self.max_ratio, where)

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        self.check(context.where)
        found = self._found(plain(model, share=True), next(iter(batches()))[0], context)
        Limits(self.multiple, self.max_ratio).check([group.channels for group in found], context.where)

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        del batches, context
        return model

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        self.check(context.where)
        bare = plain(model, share=True)
        inputs, _ = next(iter(batches()))
        found = self._found(bare, inputs, context)
        limits = Limits(self.multiple, self.max_ratio)
        limits.check([group.channels for group in found], context.where)
        scores = self._scores(found, bare, batches, context)
        if self.scope == "global":
            wanted = above_threshold(scores, self.ratio)
        else:
            wanted = [round(group.channels * (1 - self.ratio)) for group in found]
        widths = [limits.rounded(width, group.channels) for width, group in zip(wanted, found, strict=True)]
        edit = Edit(self.name, {"kept": keep_channels(found, scores, widths)})
        notes = [
            f"{group.members[0][0]}: {width} of {group.channels} {self.parts} kept"
            for group, width in zip(found, widths, strict=True)
        ]
        gone = 1 - sum(widths) / sum(group.channels for group in found)
        notes.append(f"{gone:.1%} of the {self.parts} are gone where {self.ratio:.1%} was asked")
        state = model.state_dict()
        sliced = self.apply(sharing(model), edit)
        if why := encoder_parts.runs(sliced, inputs):
            raise MethodError(
                f"{context.where}: {self.name}: the model doesn't run without some of its {self.parts}: {why}"
            )
        tensors = {name: each for name, each in sliced.state_dict().items() if each.shape != state[name].shape}
        return Plan(edit, tensors, notes)

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        bare = plain(model, share=True)
        inputs, _ = next(iter(batches()))
        found = self._found(bare, inputs, context)
        scores = self._scores(found, bare, batches, context)
        limits = Limits(self.multiple, self.max_ratio)

        def change(group: Group, score: Tensor) -> Alone:
            width = limits.rounded(round(group.channels * (1 - self.ratio)), group.channels)

            def make() -> nn.Module:
                return slice_model(copy.deepcopy(model), keep_channels([group], [score], [width]))

            names = tuple(dict.fromkeys(name for name, _, _ in group.members))
            strength: dict[str, Any] = {"importance": self.importance, "width": width}
            if self.importance == "movement":
                strength |= asdict(self._tuning) | {"train": movement.rows_of(context).digest}
            return Alone(strength, make, names)

        return {group.members[0][0]: change(group, score) for group, score in zip(found, scores, strict=True)}

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        """Keep the listed positions of each layer's sides."""
        kept: dict[str, Any] = edit.data["kept"]
        return slice_model(model, kept)

    @property
    def _tuning(self) -> movement.Tuning:
        default = movement.Tuning()
        return movement.Tuning(self.steps or default.steps, self.lr or default.lr)

    def _scores(self, found: list[Group], bare: nn.Module, batches: Batches, context: Context) -> list[Tensor]:
        return importances.scores(self.importance, found, bare, batches, context, self._tuning)

    def _found(self, bare: nn.Module, inputs: dict[str, Tensor], context: Context) -> list[Group]:
        found = self.groups(bare, inputs)
        if not found:
            raise MethodError(f"{context.where}: {self.name} found no {self.parts} in this model")
        return found
