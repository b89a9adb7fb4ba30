"""A real release whose raw input is text, or pairs of texts: a tiny encoder with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch

from slimline import benchmark, manifest, preprocess
from slimline.export.onnx import export
from slimline.models.hf_encoder import HfEncoder
from slimline.release import build
from slimline.tasks.text import Text, text
from tests.encoders import LABELS, texts, write_encoder, write_table

ROW: dict[str, Any] = {"agreement": 1.0, "latency_ms": {"1": {"p50": 1.0}, "32": {"p50": 8.0}}, "threads": 1}


def write_release(folder: Path, *, pair: bool = False) -> Path:
    """Write ``folder``/release, of one stage ``teacher``, and return it."""
    write_encoder(folder / "model")
    found = zip(texts(90), texts(90, seed=2), strict=True)
    rows = [(first, second, label) if pair else (first, label) for (first, label), (second, _) in found]
    names = ("first", "second", "label") if pair else ("text", "label")
    write_table(folder / "t.csv", rows, names)
    with chdir(folder):
        task: Text = text(
            data="t.csv",
            tokenizer="model",
            labels=list(LABELS),
            max_length=24,
            text=list(names[:-1]) if pair else "text",
        )
        torch.manual_seed(0)
        model = HfEncoder("model", classes=len(LABELS)).eval()
        with manifest.sealed(folder / "exports" / "teacher") as scratch:
            export(model, task.signature(), scratch, {})
            manifest.write_json(scratch / "signature.json", task.signature())
            preprocess.write(task.preprocess(), scratch)
        measured = {"machine": benchmark.machine(), "target": {"batch_sizes": [1]}, "stages": {"teacher": ROW}}
        document = {"task": {"name": "text", "args": {}}, "seed": 0}
        build(folder / "release", folder / "exports", ["teacher"], measured, document, task.splits()["validation"], [])
    return folder / "release"


def without_ranges(release: Path, target: Path, resealed: Callable[..., Path]) -> Path:
    """Copy a release; the copy's signature says no range of numbers, as older ones don't."""
    return _with_range(release, target, None, resealed)


def with_pieces(release: Path, target: Path, count: int, resealed: Callable[..., Path]) -> Path:
    """Copy a release; the copy's model knows so many pieces of text alone, by its signature."""
    return _with_range(release, target, [0, count - 1], resealed)


def _with_range(release: Path, target: Path, span: list[int] | None, resealed: Callable[..., Path]) -> Path:
    def change(folder: Path, card: dict[str, Any]) -> None:
        stage = folder / "chain" / card["last"]
        signature = manifest.read_json(stage / "signature.json")
        for spec in signature["inputs"]:
            del spec["range"]
            if span is not None:
                spec["range"] = span
        manifest.write_json(stage / "signature.json", signature)
        (stage / manifest.MANIFEST).unlink()
        with manifest.sealed(folder / "sealed") as scratch:
            shutil.copytree(stage, scratch, dirs_exist_ok=True)
        shutil.rmtree(stage)
        (folder / "sealed").rename(stage)

    return resealed(release, target, change)
