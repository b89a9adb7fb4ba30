"""A project on one's own model and data: its params.yaml, and lines that say what was found in both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from slimline import pipeline
from slimline.errors import ParamsError
from slimline.own_data.labelled_rows import PARTS
from slimline.project import image_params, image_size, own_data, own_head, params_comments, text_params
from slimline.project.own_weights import Weights

LABELS_SHOWN = 10


@dataclass(frozen=True)
class Own:
    """A user's own model (a folder, or a name on the hub) and data; columns that aren't named are found.

    ``archive`` holds the images that a table lists, where they don't lie beside it; ``size`` [height, width] is what
    images are brought to, by their own size without it. ``weights`` is a file for the model, in place of its own.
    """

    model: str
    data: Path
    text: tuple[str, ...] = ()
    label: str | None = None
    max_length: int | None = None
    split: str | None = None
    group: str | None = None
    archive: Path | None = None
    answer: str | None = None
    separator: str | None = None
    size: tuple[int, int] | None = None
    weights: Path | None = None

    @cached_property
    def held(self) -> Weights | None:
        """What the file ``weights`` holds."""
        return Weights(self.weights) if self.weights is not None else None


def params_text(own: Own, folder: Path, recipe: str, limit: int | None) -> str:
    """Return params.yaml for one's own model and data: a table of texts; images in class folders, or listed in one."""
    columns = own_data.Columns(own.text, own.label, own.split, own.group, own.answer, own.separator)
    if image_params.is_of_images(own.model) or own_data.classes(own.data) is not None:
        _refuse(own, "images", text="--text", max_length="--max-length")
        described = own_data.describe_images(own.data, columns)
        document = image_params.image_params(own.model, described, recipe, limit, _size(own), own.held)
        document["task"]["args"]["data"] = _from(folder, own.data)
        if own.archive is not None:
            document["task"]["args"]["archive"] = _from(folder, own.archive)
    else:
        _refuse(own, "texts", archive="--archive", size="--size")
        described = own_data.describe(own.data, columns)
        model = _from(folder, Path(own.model)) if Path(own.model).exists() else own.model
        data: Any = {part: _from(folder, path) for part, path in own_data.find(own.data).items()}
        document = text_params.text_params(own.model, described, recipe, limit, own.held)
        document["task"]["args"] |= {"data": data.get("", data), "tokenizer": model}
        if own.max_length is not None:
            text_params.check_length(own.model, own.max_length)
            document["task"]["args"]["max_length"] = own.max_length
        document["teacher"]["model"]["args"]["source"] = document["teacher"]["weights"] = model
    if own.weights is not None:
        document["teacher"]["weights"] = _from(folder, own.weights)
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    return params_comments.commented(text, recipe)


def _size(own: Own) -> tuple[int, int] | None:
    """Return the size that was asked for, or the images' own; None: the network of a library brings its own."""
    if own.size is not None:
        if min(own.size) < 1:
            raise ParamsError(f"--size: {own.size[0]} {own.size[1]}: height and width in pixels are expected")
        return own.size
    if own.model.startswith(image_params.LIBRARIES):
        return None
    side = image_size.chosen(own.model, own.data, own.archive)
    return side, side


def _refuse(own: Own, kind: str, **options: str) -> None:
    """Raise ParamsError for the first of ``options`` {field: option} that is given, though ``kind`` doesn't take it."""
    for name, option in options.items():
        if getattr(own, name):
            raise ParamsError(f"{option}: {kind} don't take it; {own.model} on {own.data} are {kind}")


def _from(folder: Path, path: Path) -> str:
    """Return a path as it is written from within the project: relative, unless it was given as absolute elsewhere."""
    whole, root = path.resolve(), folder.resolve()
    if whole.is_relative_to(root):
        return str(whole.relative_to(root))
    return str(path) if path.is_absolute() else os.path.relpath(whole, root)


def notes(text: str, own: Own) -> Iterator[str]:
    """Yield what was found in the data, and what to look at in params.yaml, whose content is ``text``."""
    document = yaml.safe_load(text)
    args = document["task"]["args"]
    labels = args.get("labels", [])
    yield f"found: {_found(document['task'])}"
    if size := args.get("size"):
        yield f"size: images are brought to {size[0]}×{size[1]} pixels; --size H [W] takes another"
    yield from _left_out(document["task"]["name"], own.data)
    if own.held is None and document["task"]["name"] == "text":
        yield f"found: {own.model} {own_head.of(labels, text_params.configuration(own.model)).said}"
    if own.held is not None:
        model = document["teacher"]["model"]
        if model["name"] == "hf-encoder":  # its folder is told from within the project
            model["args"]["source"] = own.model
        trained = document["teacher"]["training"]  # None: the file was found whole
        missing = own.held.lacks(**model) if trained else []
        yield f"found: {own.held.said(missing, labels, model['args'].get('pooling'))}"
    if _trains_in_bf16(document):
        yield (
            "params.yaml: trainings have precision: bf16, since this machine computes it fast; take it out for "
            "others that don't"
        )


def _left_out(task: str, data: Path) -> Iterator[str]:
    """Yield what of the data is no part of the task."""
    if task == "images":
        yield from (f"found: {data}: {note}" for note in own_data.left_out(data))
    elif left := own_data.unused(data):
        named = ", ".join(str(path) for path in left)
        yield f"found: {named}: left out, since a table in a folder is called {', '.join(PARTS)}"


def _trains_in_bf16(document: dict[str, Any]) -> bool:
    """Return whether a stage on the way to what is exported trains in bfloat16."""
    sections = [document[name] for name in pipeline.ancestors(document, pipeline.last(document))]
    trainings = [each.get("training") or each.get("recovery") or {} for each in sections]
    return any(each.get("precision") == "bf16" and each["epochs"] for each in trainings)


def _found(task: dict[str, Any]) -> str:
    """Return which columns were taken for what, and what a label is, in one line."""
    args = task["args"]
    text = args.get("text", [])
    columns = {"text": ", ".join([text] if isinstance(text, str) else text)}
    columns |= {name: args[name] for name in ("label", "split", "group") if name in args}
    labels = ", ".join(args.get("labels", [])[:LABELS_SHOWN]) + (
        ", …" if len(args.get("labels", [])) > LABELS_SHOWN else ""
    )
    between = f", {args['separator']!r} between them" if "separator" in args else ""
    answers = {"one": f"one of {len(args.get('labels', []))} labels a row ({labels})",
               "many": f"any of {len(args.get('labels', []))} labels a row ({labels}){between}",
               "number": f"a number a row, right within {args.get('tolerance')}"}  # fmt: skip
    named = [f"column {column!r} as {name}" for name, column in columns.items() if column]
    return "; ".join([task["name"], *named, answers[args.get("answer", "one")]])
