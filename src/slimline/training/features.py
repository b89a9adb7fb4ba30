"""What chosen layers of a model give, collected by forward hooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.errors import ParamsError, near_miss
from slimline.task import call


@contextmanager
def captured(model: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that gets the output of each named layer when ``model`` runs inside.

    Of several outputs it is the first: layers of some encoders give their attention beside their states.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, _layer: nn.Module, _args: Any, out: Any) -> None:
        found[name] = out[0] if isinstance(out, tuple) and out else out

    with layer_hooks.after(model, layers, keep):
        yield found


def find_layer(model: nn.Module, name: str, whose: str, where: str) -> None:
    """Raise ParamsError, ``where`` first, when ``model`` (``whose`` says which) has no layer of this name."""
    known = [each for each, _ in model.named_modules() if each]
    if name not in known:
        raise ParamsError(f"{where}: no layer {name!r} in {whose}.{near_miss(name, known)}")


@torch.no_grad()
def example_features(
    model: nn.Module, layers: Mapping[str, str], inputs: dict[str, Tensor], whose: str
) -> dict[str, Tensor]:
    """Return what layers give for ``inputs`` in evaluation mode. ``layers`` maps each to the file and key to blame."""
    was_training = model.training
    model.eval()
    with captured(model, layers) as found:
        call(model, inputs)
    model.train(was_training)
    for name, where in layers.items():
        if not isinstance(found.get(name), Tensor):
            gives = f"gives a {type(found[name]).__name__}, no tensor" if name in found else "is never run"
            raise ParamsError(f"{where}: layer {name!r} of {whose} {gives}")
    return found
