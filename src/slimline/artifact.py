"""Model ↔ directory. A loaded model is built fresh, its edits replayed, its weights loaded: no pickle, no tracing."""

from __future__ import annotations

import inspect
import platform
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimline import manifest, plugins
from slimline.errors import ArtifactError, MethodError, PluginError, SlimlineError
from slimline.method import VERSION, Edit
from slimline.task import Task

FORMAT = 1
FOLDER = Path("artifacts")
ASSETS = "assets"


@dataclass(frozen=True)
class Named:
    """A plug-in and its keyword arguments."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """model.json: how to rebuild the model, and where it came from."""

    task: Named
    model: Named
    edits: list[Edit]
    stage: str
    parent: str | None = None
    teacher: str | None = None
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def versions() -> dict[str, str]:
    """Return the versions that decide a trained model's bits."""
    python = ".".join(platform.python_version_tuple()[:2])  # a patch release changes no weights
    return {"python": python, **{name: version(name) for name in ("numpy", "slimline", "torch")}}


def save(
    directory: Path, model: nn.Module, artifact: Artifact, assets: Path | None = None, files: Collection[Path] = ()
) -> str:
    """Write an artifact directory whole or not at all, and return its digest.

    ``assets/`` gets what building the model needs beside code: the folder ``assets``, then ``files`` (a tokenizer),
    then the model's own attribute ``assets`` {name: text} (a configuration).
    """
    from safetensors.torch import save_file

    with manifest.sealed(directory) as scratch:
        manifest.write_json(scratch / "model.json", asdict(artifact))
        try:
            save_file(_state(model), scratch / "model.safetensors")
        except Exception as error:
            if "No space left" in str(error):
                raise OSError(28, "No space left on device") from error
            raise
        if assets is not None and assets.is_dir():
            shutil.copytree(assets, scratch / ASSETS)
        for file in files:
            (scratch / ASSETS).mkdir(exist_ok=True)
            shutil.copyfile(file, scratch / ASSETS / file.name)
        for name, text in own_assets(model).items():
            manifest.write_text(scratch / ASSETS / name, text)
    return manifest.digest(directory)


def own_assets(model: nn.Module) -> dict[str, str]:
    """Return {file name: text} of what a model wants to find again under ``assets`` when it is built anew."""
    found = getattr(model, "assets", None)
    return dict(found) if isinstance(found, dict) else {}


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}


def read(directory: Path) -> Artifact:
    """Verify every digest in ``directory`` and return its model.json."""
    manifest.verify(directory)
    path = directory / "model.json"
    document = manifest.read_json(path)
    manifest.check_format(document, path, FORMAT)
    try:
        edits = [Edit(**edit) for edit in document["edits"]]
        task, model = Named(**document["task"]), Named(**document["model"])
        rest = {key: document[key] for key in ("stage", "parent", "teacher", "seed", "versions")}
        return Artifact(task=task, model=model, edits=edits, **rest)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a model description ({error}); make the stage again") from error


def load(directory: Path, *, trust: Collection[str] = (), task: Task | None = None) -> tuple[nn.Module, Artifact]:
    """Rebuild the model of an artifact directory, in evaluation mode.

    Only registered plug-ins run, and the ``module:Name`` references in ``trust``. Pass ``task`` when it is at hand.
    Raises ArtifactError naming the file on a wrong digest, a newer format, an unknown edit or wrong tensors.
    """
    artifact = read(directory)
    where = str(directory / "model.json")
    task = task or build_task(artifact.task, f"{where}: task", trust)
    assets = directory / ASSETS
    model = rebuild(task, artifact.model, artifact.edits, where=where, trust=trust, assets=assets)
    load_weights(model, directory / "model.safetensors")
    return model.eval(), artifact


def build_task(named: Named, where: str, trust: Collection[str] | None = None) -> Task:
    """Build a task by plug-in name. Raises ArtifactError or PluginError naming ``where``.

    What the task itself refuses names its key, ``task.args.KEY``: the file of ``where`` is put before it.
    """
    factory = plugins.find("tasks", named.name, where=where, trust=trust)
    _check_factory(factory, Task, named, where)
    try:
        task: Task = factory(**named.args)
    except SlimlineError as error:
        raise type(error)(f"{where.partition(': ')[0]}: {error}") from error
    except Exception as error:  # a plug-in's constructor raises what it likes
        raise ArtifactError(f"{where}.args: {_line(error)}") from error
    _check_kind(isinstance(task, Task), Task, named, where)
    return task


def build_model(
    task: Task, named: Named, where: str, trust: Collection[str] | None = None, assets: Path | None = None
) -> nn.Module:
    """Build an untrained model for ``task``; bad arguments are an ArtifactError naming ``where``.

    A model whose constructor takes ``assets`` is given the folder of the artifact that is being loaded.
    """
    factory = plugins.find("models", named.name, where=f"{where}.name", trust=trust)
    _check_factory(factory, nn.Module, named, where)
    takes = assets is not None and assets.is_dir() and "assets" in inspect.signature(factory).parameters
    try:
        model = task.build_model(named.name, **named.args, **({"assets": assets} if takes else {}))
    except SlimlineError as error:
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:  # a plug-in's constructor raises what it likes
        raise ArtifactError(f"{where}.args: {_line(error)}") from error
    _check_kind(isinstance(model, nn.Module), nn.Module, named, where)
    return model


def _check_factory(factory: Any, wanted: type, named: Named, where: str) -> None:
    """Raise PluginError where what a name leads to can't make a task or model: it would fail late, or in a riddle."""
    _check_kind(issubclass(factory, wanted) if inspect.isclass(factory) else callable(factory), wanted, named, where)


def _check_kind(fits: object, wanted: type, named: Named, where: str) -> None:
    if not fits:
        known = {Task: "slimline.task.Task", nn.Module: "torch.nn.Module"}[wanted]
        raise PluginError(
            f"{where}.name: {named.name!r} is no such plug-in: a class that extends {known}, or a function that "
            "returns one of it, is expected"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def rebuild(
    task: Task,
    named: Named,
    edits: list[Edit],
    *,
    where: str = "model.json",
    trust: Collection[str] | None = None,
    assets: Path | None = None,
) -> nn.Module:
    """Build the model fresh and replay ``edits`` on it; its weights are still untrained."""
    random_state = torch.get_rng_state()
    model = build_model(task, named, f"{where}: model", trust, assets)
    torch.set_rng_state(random_state)
    for index, edit in enumerate(edits):
        model = replay(model, edit, where=f"{where}: edits.{index}", trust=trust)
    return model


def replay(model: nn.Module, edit: Edit, *, where: str, trust: Collection[str] | None = None) -> nn.Module:
    """Apply one edit's structure. Raises ArtifactError when its method or version is unknown, or it doesn't fit."""
    if not isinstance(edit.version, int) or edit.version > VERSION:
        raise ArtifactError(f"{where}: version {edit.version!r} is newer than this Slimline reads: upgrade slimline")
    try:
        method = plugins.find("methods", edit.method, where=f"{where}: method", trust=trust)
    except PluginError as error:
        raise type(error)(f"{error}. Install the plug-in that made this artifact") from error
    try:
        changed: nn.Module = method.apply(model, edit)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError, MethodError) as error:
        raise ArtifactError(f"{where}: {edit.method} doesn't fit this model: {error!r}") from error
    return changed


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into ``model``; every tensor must be there, none more, each of its shape and dtype."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: not found") from error
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a safetensors file, or truncated ({error})") from error
    state = model.state_dict()
    if missing := sorted(state.keys() - tensors.keys()):
        raise ArtifactError(f"{path}: tensor {missing[0]} is missing ({len(missing)} in all)")
    if unknown := sorted(tensors.keys() - state.keys()):
        raise ArtifactError(f"{path}: tensor {unknown[0]} has no place in the model ({len(unknown)} in all)")
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape or tensor.dtype != state[name].dtype:
            raise ArtifactError(
                f"{path}: tensor {name}: {tensor.dtype} {list(tensor.shape)}, "
                f"the model takes {state[name].dtype} {list(state[name].shape)}"
            )
    model.load_state_dict(tensors)
