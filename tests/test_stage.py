"""A compression stage keeps what its methods did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor, nn

from slimline import artifact, params, stage
from slimline.artifact import Artifact
from slimline.channels import slice_model
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.models.cnn import Cnn
from slimline.stage import Stage, compression


@dataclass(frozen=True)
class Halve(Method):
    """Slices the model and loads no tensors: what is kept is already there."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:Halve", {"kept": [0, 1, 2, 3]}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        kept = edit.data["kept"]
        return slice_model(model, {"0": {"out": kept}, "1": {"out": kept}, "3": {"in": kept}})


@dataclass(frozen=True)
class Lasso(Method):
    """Changes nothing itself and joins the loss of the recovery."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:Lasso", {}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model

    def penalty(self, model: nn.Module) -> Tensor | None:
        return sum((p.abs().sum() for p in model.parameters()), start=next(model.parameters()).new_zeros(()))


@dataclass(frozen=True)
class Undecided(Method):
    """Finds nothing worth doing."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:Undecided", {}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model


@contextmanager
def _no_curves(name: str) -> Iterator[Any]:
    yield lambda _: None


@pytest.mark.parametrize(("method", "kept"), [(Halve, True), (Lasso, True), (Undecided, False)])
def test_a_methods_edit_is_kept_when_it_changed_something_or_joins_the_training(
    method: type[Method],
    kept: bool,
    cnn: Cnn,
    described: dict[str, Artifact],
    document: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Edits without tensors used to be dropped, and the stage wrote an artifact that couldn't be loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "curves", _no_curves)  # DVCLive wants a git repository
    name = f"{__name__}:{method.__name__}"
    document |= {"trust": [name], "limit": 60}
    document["prune"] = {"from": "teacher", "methods": [{"name": name}]}
    Path("params.yaml").write_text(yaml.safe_dump(document))
    artifact.save(Path("artifacts/teacher"), cnn, described["cnn"])
    compression(Stage("prune", params.load(), 60))
    model, written = artifact.load(Path("artifacts/prune"), trust=[name])
    assert [edit.method for edit in written.edits] == ([name] if kept else [])
    assert model.get_submodule("0").out_channels == (4 if method is Halve else 8)
