"""params.yaml for a user's own model and data: which model, which labels in which order, how long texts are."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from slimline import hub, plugins, tokenizer, trimming
from slimline.errors import DataError, ParamsError, SlimlineError
from slimline.project import own_head
from slimline.project.own_data import Described
from slimline.project.own_weights import Weights

HERE = Path(__file__).parent
LONGEST = 256
SHARE = 0.95  # of the texts fit into max_length
IMAGE_MODELS = ("efficientnet-lite", "resnet", "cnn")
LIBRARIES = ("timm:", "torchvision:")
IMAGES = 240_000  # a training sees no more, all epochs together


def text_params(
    model: str, described: Described, recipe: str, limit: int | None, weights: Weights | None = None
) -> dict[str, Any]:
    """Return params.yaml's content for an encoder on texts.

    A model that has a head for these labels, in its folder or in the file ``weights``, is taken as it is; any other is
    trained as the teacher first.
    """
    document: dict[str, Any] = yaml.safe_load((HERE / "own_text.yaml").read_text(encoding="utf-8"))
    settings = configuration(model)
    labels, has_head, _ = own_head.of(described.labels, settings)
    args: dict[str, Any] = {"data": None, "tokenizer": model}  # whoever knows the project's folder writes the paths
    args |= {"text": described.text if len(described.text) == 2 else described.text[0]}
    length = max_length(model, described, positions(model)[0] or LONGEST)
    document["task"]["args"] = args | {"max_length": length} | _rows_args(described, labels)
    document["limit"] = limit
    classes = len(labels) or 1
    if weights is not None:
        has_head = weights.pooling(model, classes) == "head"
    pooling = "head" if has_head else "mean"
    teacher = document["teacher"]
    teacher["model"]["args"] = {"source": model, "pooling": pooling, "classes": classes}
    teacher["weights"] = model
    if has_head or (weights is not None and not weights.lacks(**teacher["model"])):
        teacher["training"] = None
    _judge(document, described.answer)
    layers, path = _layers(model, pooling)
    if path is None and recipe != "int8":
        raise ParamsError(f"--recipe: {recipe!r}: {model} has no list of layers, so none of them can go; take int8")
    kept = {"int8": layers, "small": math.ceil(layers / 2), "smallest": math.ceil(layers / 3)}[recipe]
    document["distill"]["keep"] = {path: spread(layers, max(kept, 1))} if path else None
    _set_precision(document)
    _follow(document, recipe, model)
    return document


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
    document["task"]["args"] = {"data": None, **_rows_args(described, described.labels)}
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
    _judge(document, described.answer)
    if weights is not None and not weights.lacks(**document["teacher"]["model"]):
        document["teacher"]["training"] = None
    _train(document, described.rows)
    _set_precision(document, in_groups=_has_groups(network))
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


def _rows_args(described: Described, labels: list[str]) -> dict[str, Any]:
    """Return the arguments that both tasks share: which columns say what, and what a label is."""
    said = {"label": described.label, "split": described.split, "group": described.group}
    args: dict[str, Any] = {key: column for key, column in said.items() if column is not None}
    if described.answer != "one":
        args["answer"] = described.answer
    if described.separator != ",":
        args["separator"] = described.separator
    return args | ({"labels": labels} if labels else {"tolerance": described.tolerance})


def _judge(document: dict[str, Any], answer: str) -> None:
    """Set what the budget bounds by the kind of answer."""
    primary = {"one": "accuracy", "many": "micro_f1", "number": "within_tolerance"}[answer]
    document["budget"]["max_drop"] = {primary: 0.015}


def _train(document: dict[str, Any], rows: int) -> None:
    """Let no training see more than ``IMAGES`` images, in two epochs at least."""
    trainings = [document[name]["training"] for name in ("teacher", "distill")]
    recoveries = [document[name]["recovery"] for name in ("prune", "quantize", "factorize")]
    for each in filter(None, (*trainings, *recoveries)):
        each["epochs"] = min(each["epochs"], max(2, round(IMAGES / rows)))


def _set_precision(document: dict[str, Any], *, in_groups: bool = False) -> None:
    """Train in bfloat16 where this machine computes it fast (``make bench-training`` measures it).

    On CPUs convolutions in groups are faster in float32 with channels last; quantizers are trained in float32.
    """
    import torch

    known = torch.cpu.get_capabilities()
    on_cpu = any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16")) and not in_groups
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if on_cpu or on_gpu:
        for each in (document["teacher"]["training"], document["distill"]["training"], document["prune"]["recovery"]):
            if each:  # a teacher may come trained
                each["precision"] = "bf16"


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


def _follow(document: dict[str, Any], recipe: str, model: str) -> None:
    """Make the chain of a recipe out of the one of the template, which is that of ``smallest``."""
    prune, quantize, export = (document[name] for name in ("prune", "quantize", "export"))
    words, *parts = prune["methods"]
    trims = recipe != "int8" and tokenizer.kind(model) in trimming.KINDS
    if trims:
        document["task"]["args"]["vocabulary"] = "train"
    narrowing = _that_narrow(model, parts)
    if recipe == "smallest":
        if not (trims or narrowing):
            raise ParamsError(f"--recipe: {recipe!r}: neither pieces, heads nor neurons of {model} can go; take small")
        prune["methods"] = [*([words] if trims else []), *narrowing]
        quantize["recovery"]["epochs"] = 1
    elif trims:
        prune["methods"] = [words]
        prune["recovery"]["epochs"] = 0
    else:  # nothing runs this stage, but it has to fit the model
        prune["methods"] = narrowing[-1:] or [{"name": "magnitude", "ratio": 0.5}]
        quantize["from"] = "teacher" if recipe == "int8" else "distill"
        export["stages"] = list(dict.fromkeys(["teacher", quantize["from"], "quantize"]))


def _that_narrow(model: str, methods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return which of these methods find parts that can go in an encoder: in two of its layers, since all are alike."""
    import torch

    build = plugins.find("models", "hf-encoder", where="--model")
    with suppress(RuntimeError, ValueError, IndexError, TypeError, SlimlineError):
        network = build(source=model, config={"num_hidden_layers": 2}).eval()
        ids = torch.full((2, 8), network.pad_id + 1)
        return [each for each in methods if _narrows(each, network, {"input_ids": ids})]
    return methods  # 'slimline check' looks at the whole


def _narrows(method: dict[str, Any], network: Any, inputs: dict[str, Any]) -> bool:
    """Return whether a method that prunes parts of an encoder finds layers with enough of them."""
    from slimline.widths import Limits

    keys = {key: value for key, value in method.items() if key != "name"}
    made = plugins.find("methods", method["name"])(**keys)
    widths = [group.channels for group in made.groups(network, inputs)]
    limits = Limits(made.multiple, made.max_ratio)
    return any(limits.narrower(width, width) for width in widths)


def configuration(model: str) -> dict[str, Any]:
    """Return a model's config.json, from its folder or the hub."""
    path = Path(model, "config.json")
    if Path(model).is_dir() and not path.is_file():
        saved = [each.parent for each in Path(model).glob("checkpoint-*/config.json") if _step(each.parent) >= 0]
        hint = "a folder saved by transformers is expected"
        if saved:
            hint = f"take {max(saved, key=_step)}, the newest checkpoint in it"
        raise DataError(f"--model: {model}: no config.json in it; {hint}")
    if not path.is_file():
        path = hub.fetch(model, "config.json", "--model: ")
    return hub.read_json(path)


def _step(checkpoint: Path) -> int:
    """Return the N of a folder checkpoint-N, and -1 for another."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def max_length(model: str, described: Described, most: int) -> int:
    """Return a length (a multiple of 16) that most of the texts fit into."""
    from slimline.tokens import lengths

    found = sorted(lengths(described.sample, str(tokenizer.find(model).file)))
    if not found:
        raise ParamsError("--data: no row in it")
    wanted = found[min(len(found) - 1, int(SHARE * len(found)))]
    return min(16 * math.ceil(wanted / 16), LONGEST, (most - most % 16) or most)


def check_length(model: str, length: int) -> None:
    """Raise ParamsError where texts of ``length`` tokens are more than a model takes."""
    most, held = positions(model)
    if most is not None and length > most:
        raise ParamsError(
            f"--max-length: {length}: {model} takes texts of at most {most} tokens (of its {held} positions)"
        )


def positions(model: str) -> tuple[int | None, int]:
    """Return how many tokens an encoder takes, None where nothing bounds them, and how many positions it holds."""
    found: tuple[int | None, int] = _without_memory(model, "mean").positions
    return found


def spread(layers: int, kept: int) -> list[int]:
    """Return ``kept`` positions of so many layers, evenly spread, the first and the last among them."""
    if kept == 1:
        return [0]
    return [round(at * (layers - 1) / (kept - 1)) for at in range(kept)]


def _layers(model: str, pooling: str) -> tuple[int, str | None]:
    """Return how many layers an encoder has and where they stand in ``hf-encoder``; None: in no list of so many."""
    from torch import nn

    network = _without_memory(model, pooling)
    settings = network.body.config
    if settings.is_encoder_decoder:
        raise ParamsError(f"--model: {model}: {settings.model_type} writes texts; an encoder (BERT, …) is expected")
    count = int(settings.num_hidden_layers)
    lists = (name for name, part in network.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count)
    return count, next(lists, None)


def _without_memory(model: str, pooling: str) -> Any:
    """Return an encoder that is built without memory for its weights."""
    import torch

    with torch.device("meta"):
        return plugins.find("models", "hf-encoder", where="--model")(source=model, pooling=pooling)
