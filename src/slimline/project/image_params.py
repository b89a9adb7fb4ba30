"""params.yaml for images of one's own: which network, of which size, and the chain of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from slimline import plugins
from slimline.errors import ParamsError
from slimline.project import own_params
from slimline.project.own_data import Described
from slimline.project.own_weights import Weights

HERE = Path(__file__).parent
IMAGE_MODELS = ("efficientnet-lite", "resnet", "cnn")
LIBRARIES = ("timm:", "torchvision:")
IMAGES = 240_000  # a training sees no more, all epochs together


def image_params(
    model: str,
    described: Described,
    recipe: str,
    limit: int | None,
    size: tuple[int, int] | None = None,
    weights: Weights | None = None,
) -> dict[str, Any]:
    """Return params.yaml's content for images; ``model`` is efficientnet-lite, resnet, cnn, or one of a library:
    timm:NAME, torchvision:NAME. Those bring the scale of their images along, and the size unless it is given.

    The more images there are, the fewer epochs. A file ``weights`` that holds the whole net is taken as it is.
    """
    if not is_of_images(model):
        known = ", ".join([*IMAGE_MODELS, *(f"{each}NAME" for each in LIBRARIES)])
        raise ParamsError(f"--model: {model!r}: for images take one of {known}")
    of_library = model.startswith(LIBRARIES)
    outputs = len(described.labels) or 1
    document: dict[str, Any] = yaml.safe_load((HERE / "own_images.yaml").read_text(encoding="utf-8"))
    document["task"]["args"] = {"data": None, **own_params.rows_args(described, described.labels)}
    document["task"]["args"]["size"] = list(size or (64, 64))
    document["limit"] = limit
    channels = {"channels": 3} if model in {"resnet", "cnn"} else {}
    document["teacher"]["model"] = {"name": model, "args": {"classes": outputs, **channels}}
    build = partial(plugins.find("models", model, where="--model"), **document["teacher"]["model"]["args"])
    more = _for_size(model, build, size) if of_library and size else {}
    document["teacher"]["model"]["args"] |= more
    network = build(**more)
    if of_library:
        document["task"]["args"] |= network.images | ({"size": list(size)} if size else {})
        document["teacher"]["weights"] = "pretrained" if network.has_weights else None
    elif model != "efficientnet-lite":
        document["teacher"]["weights"] = None
    if model != "efficientnet-lite":
        document["quantize"]["methods"][0]["skip"] = []
    own_params.judge(document, described.answer)
    if weights is not None and not weights.lacks(**document["teacher"]["model"]):
        document["teacher"]["training"] = None
    _train(document, described.rows)
    own_params.set_precision(document, in_groups=_has_groups(network))
    _shorten(document, recipe, has_blocks=model == "efficientnet-lite")
    return document


def _for_size(model: str, build: Callable[..., Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return what a library's builder must be told for images of ``size``: mostly nothing; a ViT's is built for one."""
    import torch

    for more in ({}, {"img_size": list(size)}, {"image_size": size[0]}):
        with suppress(TypeError, RuntimeError, AssertionError, ValueError), torch.inference_mode():
            build(**more).eval()(torch.zeros(1, 3, *size))
            return more
    raise ParamsError(f"--size: {size[0]} {size[1]}: {model} can't take images of that size; leave it out for its own")


def is_of_images(model: str) -> bool:
    """Return whether a model is one of those that take images."""
    return model in IMAGE_MODELS or model.startswith(LIBRARIES)


def _train(document: dict[str, Any], rows: int) -> None:
    """Let no training see more than ``IMAGES`` images, in two epochs at least."""
    trainings = [document[name]["training"] for name in ("teacher", "distill")]
    recoveries = [document[name]["recovery"] for name in ("prune", "quantize", "factorize")]
    for each in filter(None, (*trainings, *recoveries)):
        each["epochs"] = min(each["epochs"], max(2, round(IMAGES / rows)))


def _has_groups(network: Any) -> bool:
    """Return whether a network has convolutions in groups, depthwise ones say."""
    return any(getattr(layer, "groups", 1) > 1 for layer in network.modules())


def _shorten(document: dict[str, Any], recipe: str, *, has_blocks: bool) -> None:
    """Make the chain of a recipe out of the template's, which is that of ``smallest`` for a model of blocks."""
    prune, quantize, export = (document[name] for name in ("prune", "quantize", "export"))
    if recipe == "smallest" and has_blocks:
        return
    prune["from"] = "teacher"
    prune["methods"][0] |= {"of": "channels", "ratio": 0.4, "max_ratio": 0.75}
    export["stages"] = ["teacher", "prune", "quantize"]
    if not has_blocks:
        del document["distill"]["keep"]
    if recipe == "int8":
        quantize["from"] = "teacher"
        quantize["recovery"]["epochs"] = 0
        export["stages"] = ["teacher", "quantize"]
    elif recipe == "smallest":
        export["stages"].append("factorize")
