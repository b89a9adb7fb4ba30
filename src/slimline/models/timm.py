"""Networks of PyTorch Image Models (timm) by their name there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from slimline.errors import ParamsError, near_miss
from slimline.models.library import IMAGENET, IMAGENET_MEAN, IMAGENET_STD, LibraryModel, check_args


def timm(name: str, classes: int = IMAGENET, channels: int = 3, **args: Any) -> nn.Module:
    """Build a network of timm by its name there (timm:convnext_atto, timm:resnet50.a1_in1k).

    Further ``args`` are those of timm's ``create_model`` (``img_size`` of a ViT, say) that open no file. Weights come
    in by ``teacher.weights``: a file, or ``pretrained`` for timm's own. Raises ParamsError where timm is missing or has
    no such network.
    """
    library = _timm(name)
    if not _is_known(library, name):
        near = near_miss(name, library.list_models())
        raise ParamsError(f"timm:{name}: timm {library.__version__} has no such model.{near}")
    check_args(f"timm:{name}", args)

    def build(*, pretrained: bool) -> nn.Module:
        model: nn.Module = library.create_model(
            name, pretrained=pretrained, num_classes=classes, in_chans=channels, **args
        )
        return model

    def fetch() -> Mapping[str, Tensor]:
        return build(pretrained=True).state_dict()

    body = build(pretrained=False)
    for module in body.modules():
        if "fused_attn" in vars(module):
            vars(module)["fused_attn"] = False  # MatMul, Softmax, MatMul are what graph optimizers know
    settings: dict[str, Any] = getattr(body, "pretrained_cfg", None) or {}
    heads = settings.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    other = settings.get("num_classes") != classes
    names = [each for each in body.state_dict() if other and each.rpartition(".")[0] in heads]
    known = any(settings.get(key) for key in ("url", "hf_hub_id", "file"))
    images = {
        "size": list(settings.get("input_size", (3, 224, 224))[1:]),
        "mean": list(settings.get("mean", IMAGENET_MEAN)),
        "std": list(settings.get("std", IMAGENET_STD)),
    }
    return LibraryModel(body, lambda: names, fetch if known else None, images)


def _is_known(library: Any, name: str) -> bool:
    """Return whether timm itself has a network of this name and, behind a dot, weights of that tag."""
    if ":" in name or not library.is_model(name):  # a colon would lead to a hub
        return False
    try:
        library.models.get_pretrained_cfg(name)
    except RuntimeError:
        return False
    return True


def _timm(name: str) -> Any:
    try:
        import timm as library
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        missing = getattr(error, "name", None) == "timm"
        why = "is not installed" if missing else f"can't be imported: {' '.join(str(error).split())[:160]}"
        raise ParamsError(
            f"timm:{name}: timm {why}; pip install timm, and the torchvision that fits your torch"
        ) from error
    return library
