"""params.yaml for an encoder on texts of one's own: which layers stay, how long texts are, the chain of a recipe."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from slimline import plugins, tokenizer
from slimline.errors import DataError, ParamsError, SlimlineError
from slimline.project import own_head, own_params
from slimline.project.own_data import Described
from slimline.project.own_weights import Weights
from slimline.pruning import trimming
from slimline.teachers import hub

HERE = Path(__file__).parent
LONGEST = 256
SHARE = 0.95  # of the texts fit into max_length


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
    document["task"]["args"] = args | {"max_length": length} | own_params.rows_args(described, labels)
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
    own_params.judge(document, described.answer)
    layers, path = _layers(model, pooling)
    if path is None and recipe != "int8":
        raise ParamsError(f"--recipe: {recipe!r}: {model} has no list of layers, so none of them can go; take int8")
    kept = {"int8": layers, "small": math.ceil(layers / 2), "smallest": math.ceil(layers / 3)}[recipe]
    document["distill"]["keep"] = {path: spread(layers, max(kept, 1))} if path else None
    own_params.set_precision(document)
    _follow(document, recipe, model)
    return document


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
    from slimline.pruning.widths import Limits

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
        path = hub.fetched(model, "config.json", "--model: ")
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
