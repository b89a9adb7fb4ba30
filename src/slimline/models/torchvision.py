"""Networks of torchvision that classify images, by their name there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slimline.errors import ParamsError, near_miss
from slimline.models.library import IMAGENET, IMAGENET_MEAN, IMAGENET_STD, LibraryModel, check_args


def torchvision(name: str, classes: int = IMAGENET, **args: Any) -> nn.Module:
    """Build a network of torchvision by its name there (torchvision:vit_b_16).

    Further ``args`` are the builder's (``image_size`` of a ViT, say). Weights come in by ``teacher.weights``: a file,
    or ``pretrained`` for torchvision's best ones. Raises ParamsError where torchvision is missing or has no such
    network.
    """
    library = _models(name)
    names = library.list_models(module=library)
    if name not in names:
        raise ParamsError(f"torchvision:{name}: no network of torchvision for classes.{near_miss(name, names)}")
    check_args(f"torchvision:{name}", args)

    def build(classes: int) -> nn.Module:
        model: nn.Module = library.get_model(name, weights=None, num_classes=classes, **args)
        return model

    def fetch() -> Mapping[str, Tensor]:
        given: Mapping[str, Tensor] = library.get_model_weights(name).DEFAULT.get_state_dict(progress=False)
        return given

    def fresh() -> list[str]:
        with torch.random.fork_rng(devices=[]):
            published = build(IMAGENET).state_dict()
        return [each for each, tensor in body.state_dict().items() if tensor.shape != published[each].shape]

    body = build(classes)
    weights = library.get_model_weights(name)
    size = weights.DEFAULT.transforms().crop_size[0] if len(weights) else 224
    images = {"size": [size, size], "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    return LibraryModel(body, fresh, fetch if len(weights) else None, images)


def _models(name: str) -> Any:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: it was built for another torch
        missing = getattr(error, "name", None) == "torchvision"
        why = "is not installed" if missing else f"can't be imported: {' '.join(str(error).split())[:160]}"
        raise ParamsError(f"torchvision:{name}: torchvision {why}; pip install the one that fits your torch") from error
    return models
