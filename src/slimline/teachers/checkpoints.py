"""Weights that exist: safetensors, a state dict, a Lightning checkpoint, a folder that transformers saved.

Nothing in them is run: pickles are read as weights only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimline.errors import ArtifactError

NESTED = ("state_dict", "model_state_dict", "model", "weights")
SAFE = ".safetensors"
INDEX = ".index.json"  # of weights that transformers saved in several files
COUNTED = "num_batches_tracked"  # by BatchNorm; nothing here reads it
PRETRAINING = {"cls", "lm_head", "discriminator_predictions", "sop_classifier"}  # heads of transformers for no labels


def load(model: nn.Module, source: str) -> list[str]:
    """Load ``source`` into ``model`` and return the names of tensors that it has none for, which need training.

    A folder or a name that is no file goes to the model's own ``load_pretrained``, if it has one. In a file the names
    may carry one common prefix (``model.``, ``net.module.``), the last layer may stand beside the rest under another,
    and what doesn't belong to the model is left out, as is a last layer for another number of outputs. Raises
    ArtifactError naming the file, and the tensor of another shape, or the first where more than a head is missing.
    """
    path = Path(source)
    if not path.is_file():
        load_pretrained: Callable[[str], list[str]] | None = getattr(model, "load_pretrained", None)
        if load_pretrained is not None:
            return load_pretrained(source)
        path = _in_folder(path)
    return fill(model, read(path), path)


def fill(model: nn.Module, held: Mapping[str, Tensor], path: Path) -> list[str]:
    """Load into ``model`` what ``path`` holds, as ``load`` does."""
    state = model.state_dict()
    tensors = unprefixed(held, state)
    last = _last_layer(state)
    for name, tensor in list(tensors.items()):
        if tensor.shape == state[name].shape:
            continue
        if _layer(name) == last and tensor.shape[1:] == state[name].shape[1:]:
            del tensors[name]
        else:
            raise ArtifactError(
                f"{path}: tensor {name}: {list(tensor.shape)}, the model takes {list(state[name].shape)}"
            )
    missing = [name for name in state if name not in tensors and not name.endswith(COUNTED)]
    if not tensors:
        names = ", ".join(list(held)[:3])
        raise ArtifactError(f"{path}: none of its tensors ({names}, …) belongs to the model ({next(iter(state))}, …)")
    _check_missing(model, missing, path)
    kept = {name: tensor.to(state[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(kept, strict=False)
    return missing


def _check_missing(model: nn.Module, missing: list[str], path: Path) -> None:
    """Raise ArtifactError where a file lacks more than the last layer and what the model's ``heads`` say.

    Those are what the names of tensors begin with that stand after the network, and may be learnt anew.
    """
    state = model.state_dict()
    heads: tuple[str, ...] = getattr(model, "heads", ())
    if broken := [name for name in missing if _layer(name) != _last_layer(state) and not name.startswith(heads)]:
        raise ArtifactError(
            f"{path}: it has no {broken[0]} ({len(missing)} of {len(state)} tensors are missing), and nothing but a "
            "last layer is learnt anew: give a file of the whole network"
        )


def lacking(model: nn.Module, source: str) -> list[str]:
    """Return what ``load`` will return, fetching nothing where the model can tell by itself (its ``lacks``)."""
    lacks: Callable[[str], list[str]] | None = getattr(model, "lacks", None)
    return load(model, source) if lacks is None or Path(source).exists() else lacks(source)


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, a pickled state dict, or a checkpoint that holds one."""
    if path.suffix == SAFE:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path}: not a safetensors file, or truncated ({error})") from error
    if path.name.endswith(INDEX):
        raise ArtifactError(f"{path}: it lists files of weights and holds none; give its folder, {path.parent}")
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles raise anything
        reason = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split()).partition("WeightsUnpickler error: ")
        if blocked := re.search(r"GLOBAL ([\w.]+)", reason[2]):
            raise ArtifactError(
                f"{path}: it holds {blocked[1]} beside tensors, and no objects are made: save its state_dict alone"
            ) from error
        hint = "; it holds objects beside tensors: save its state_dict alone" if "Unsupported" in reason[2] else ""
        raise ArtifactError(f"{path}: can't be read as weights: {(reason[2] or reason[0])[:160]}{hint}") from error
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    tensors = (
        {str(name): each for name, each in found.items() if isinstance(each, Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise ArtifactError(f"{path}: no tensors by name in it; save a state_dict")
    return tensors


def unprefixed(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors for the names of ``wanted``, without the prefix under which most of those stand among them.

    Where the model holds another network (many of ``wanted`` begin as the first does), files of that one are read too.
    What such a model has beside the network may then stand beside it in the file, under any shorter prefix, and its
    last layer under any name, where one layer alone there has its shapes.
    """
    first = next(iter(wanted))
    outer, _, rest = first.partition(".")
    choices = {("", "")}
    for own in {"", f"{outer}." if "." in rest else ""}:
        inner = first.removeprefix(own)
        choices |= {(own, "")} | {(own, name[: -len(inner)]) for name in tensors if name.endswith(f".{inner}")}

    def found(choice: tuple[str, str]) -> int:
        own, prefix = choice
        return sum(f"{prefix}{name.removeprefix(own)}" in tensors for name in wanted)

    own, prefix = max(sorted(choices), key=found)
    names = {name: f"{prefix}{name.removeprefix(own)}" for name in wanted}
    taken = {name: tensors[theirs] for name, theirs in names.items() if theirs in tensors}
    beside = [name for name in wanted if name not in taken and not (own and name.startswith(own))]
    for shorter in _outer(prefix):
        other = {_layer(name) for name in beside if _shape(tensors, f"{shorter}{name}") != wanted[name].shape}
        whole = [name for name in beside if _layer(name) not in other]
        taken = {name: tensors[f"{shorter}{name}"] for name in whole} | taken
    last = [name for name in wanted if _layer(name) == _last_layer(wanted)]
    if prefix and [name for name in wanted if name not in taken] == last:
        taken |= _left_over(tensors, prefix, {name: wanted[name].shape for name in last})
    return taken


def _left_over(tensors: Mapping[str, Tensor], prefix: str, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return the tensors of the one layer outside ``prefix`` that has these ``shapes`` {name: of a layer's tensor}.

    None where several have, where the head that it belongs to has more layers, or is one of a pretraining, and where
    another layer lies outside that the model would lack.
    """
    outside = [name for name in tensors if not name.startswith(prefix)]
    found = []
    for layer in {_layer(name) for name in outside} - {""}:
        theirs = {name: f"{layer}.{name.rpartition('.')[2]}" for name in shapes}
        outer = next(each for each in _outer(prefix) if layer.startswith(each))
        head = layer.removeprefix(outer).partition(".")[0]
        whole = {name for name in outside if name.startswith(f"{outer}{head}.")}
        fits = all(_shape(tensors, theirs[name]) == shape for name, shape in shapes.items())
        if fits and whole == set(theirs.values()) and head not in PRETRAINING:
            found.append({name: tensors[each] for name, each in theirs.items()})
    matrices = [name for name in outside if tensors[name].ndim > 1 and tensors[name].is_floating_point()]
    others = [name for name in matrices if PRETRAINING.isdisjoint(name.split("."))]
    return found[0] if len(found) == 1 and len(others) == 1 else {}


def _outer(prefix: str) -> list[str]:
    """Return the prefixes around one, the longest first: for ``net.encoder.`` those are ``net.`` and none."""
    parts = prefix.split(".")[:-2]
    return ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts), -1, -1)] if prefix else []


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _last_layer(state: Mapping[str, Tensor]) -> str:
    return _layer(list(state)[-1])


def _in_folder(folder: Path) -> Path:
    """Return the one file of weights in a folder."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such file or folder of weights")
    known = ("model.safetensors", "pytorch_model.bin", "model.pt", "model.pth", "last.ckpt")
    files = [folder / name for name in known if (folder / name).is_file()] or sorted(
        path for path in folder.iterdir() if path.suffix in {SAFE, ".pt", ".pth", ".ckpt", ".bin"}
    )
    if not files:
        raise ArtifactError(f"{folder}: no file of weights in it ({', '.join(known)})")
    return files[0]
