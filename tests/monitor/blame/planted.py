"""Small real chains on the digits, built well or with a fault that was planted while building, and their traffic."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import nn

from slimline import benchmark, latency, manifest, params
from slimline.answers import softmax
from slimline.decisions import Decisions
from slimline.events import EventStore, Label, Prediction, Sampler
from slimline.export.onnx import export
from slimline.gate import judge
from slimline.method import Batch, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.structured import Structured
from slimline.models.cnn import Cnn
from slimline.params import Target, Training
from slimline.predictor import Arrays, Predictor
from slimline.release import build
from slimline.task import Split, tensors
from slimline.tasks.digits import Digits
from slimline.training import State, fit
from slimline.training.losses import SoftTargets

LINE = ("teacher", "distill", "prune", "quantize")
OVER_PRUNED = (3, 8)
TRAINED = 700
BUDGET = {"max_drop": {"accuracy": 0.04}}
Change = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass
class Workshop:
    """Trains the stages once a seed and builds releases from them."""

    folder: Path
    seed: int = 0

    def __post_init__(self) -> None:
        self.task = Digits(self.seed)
        self.splits = self.task.splits()
        train = self.splits["train"]
        self.trained = Split(*train[slice(0, TRAINED)])
        parts = [train[slice(TRAINED, None)], self.splits["test"][slice(None)]]
        self.images: NDArray[np.float32] = np.concatenate([inputs["image"] for inputs, _ in parts])
        self.labels: NDArray[np.int64] = np.concatenate([targets for _, targets in parts])

    @cached_property
    def teacher(self) -> nn.Module:
        return self._fit(self._fresh(width=16), epochs=12)

    @cached_property
    def distilled(self) -> nn.Module:
        return self._fit(self._fresh(width=10), epochs=12)

    def pruned(self, without: tuple[int, ...] = ()) -> nn.Module:
        """Prune and recover; on data that lacks the classes ``without``, which is how a stage forgets them."""
        kept = Split(*self.trained[np.flatnonzero(~np.isin(self.trained.targets, without))])
        model, _ = compress(
            Structured("taylor", ratio=0.15, multiple=2), self.distilled, self._batches(kept), self._context
        )
        return self._fit(model, epochs=5, rows=kept)

    def quantized(self, model: nn.Module, brightness: float = 1.0) -> nn.Module:
        """Calibrate on images whose values are ``brightness`` times what they are: below 1 the ranges are too small."""
        split = self.splits["calibration"]
        inputs = {name: array * np.float32(brightness) for name, array in split.inputs.items()}
        quantized, _ = compress(Linear(), model, self._batches(Split(inputs, split.targets)), self._context)
        return quantized

    def release(self, name: str, *, brightness: float = 1.0, without: tuple[int, ...] = (), **keys: Any) -> Path:
        """Build a release; ``keys`` go into its params.yaml."""
        target = self.folder / name
        if target.exists():
            return target
        prune = self.pruned(without)
        models = dict(zip(LINE, (self.teacher, self.distilled, prune, self.quantized(prune, brightness)), strict=True))
        exports = self.folder / f"{name}-exports"
        for stage, model in models.items():
            with manifest.sealed(exports / stage) as scratch:
                export(model, self.task.signature(), scratch, {})
                manifest.write_json(scratch / "signature.json", self.task.signature())
                manifest.write_json(scratch / "preprocess.json", self.task.preprocess())
        document = self._document(brightness, without) | {"budget": BUDGET} | keys
        measured = self._measured(exports)
        verdict = judge(params.parse(document).budget, measured, LINE[-1])
        build(target, exports, LINE, measured, document, self.splits["validation"], verdict)
        return target

    def _document(self, brightness: float, without: tuple[int, ...]) -> dict[str, Any]:
        training = {"epochs": 12, "lr": 0.02}
        prune = {"name": "structured", "ratio": 0.15, "multiple": 2}
        planted = f"planted: {brightness} {without}"
        return {
            "task": {"name": "digits", "args": {"seed": self.seed}},
            "teacher": {"model": {"name": "cnn", "args": {"width": 16, "note": planted}}, "training": training},
            "distill": {"from": "teacher", "model": {"name": "cnn", "args": {"width": 10}}, "training": training},
            "prune": {"from": "distill", "methods": [prune], "recovery": {"epochs": 5, "lr": 0.02}},
            "quantize": {"from": "prune", "methods": [{"name": "linear"}]},
            "export": {"stages": list(LINE)},
        }

    def _measured(self, exports: Path) -> dict[str, Any]:
        predictors = {stage: Predictor(exports / stage, threads=1) for stage in LINE}
        test = self.splits["test"]
        inputs = latency.sample_inputs(self.task.signature(), [1, 8], dict(test.inputs))
        calls = {stage: each.runtime.run for stage, each in predictors.items()}
        speed = latency.table(latency.measure(calls, inputs, rounds=10, repeats=10), "teacher", 0.95)
        outputs = {stage: benchmark.outputs(each, test.inputs) for stage, each in predictors.items()}
        rows = {
            stage: benchmark.quality(self.task, test, outputs["teacher"], own, 0.95)
            | speed[stage] | {"threads": 1, "bytes": (exports / stage / "model.onnx").stat().st_size}
            for stage, own in outputs.items()
        }  # fmt: skip
        for each in predictors.values():
            each.close()
        return {"machine": benchmark.machine(), "target": {"batch_sizes": [1, 8]}, "stages": rows}

    def _fresh(self, width: int) -> nn.Module:
        """Return a net whose first weights are the seed's, whatever ran before in this process."""
        torch.manual_seed(self.seed)
        return Cnn(width=width)

    def _fit(self, model: nn.Module, epochs: int, rows: Split | None = None) -> nn.Module:
        torch.manual_seed(self.seed)
        model = copy.deepcopy(model)
        settings = Training(epochs=epochs, batch_size=64, lr=0.02)
        state = State({}, Path(mkdtemp(prefix="training-", dir=self.folder)))
        fit(
            model, self.task, rows or self.trained, self.splits["validation"] if rows is None else rows, settings,
            loss=SoftTargets(), seed=self.seed, state=state, where="here",
        )  # fmt: skip
        return model.eval()

    def _batches(self, split: Split) -> Callable[[], Iterator[Batch]]:
        def each() -> Iterator[Batch]:
            for start in range(0, min(len(split), 150), 50):
                inputs, y = split[slice(start, start + 50)]
                yield tensors(inputs), torch.from_numpy(y)

        return each

    @property
    def _context(self) -> Context:
        return Context(
            self.task, self.splits["calibration"], self.splits["validation"].head(60), Target(batch_sizes=[1]),
            Decisions(None, {}), where="here",
        )  # fmt: skip


@dataclass
class Traffic:
    """What a release answered in production, written into an event store as the endpoint does it.

    ``labelled`` is the share of rows whose label comes, ``mix`` draws the classes with other weights, ``change`` is
    what happened to the images, ``delay`` seconds are added to each prediction; ``mode`` says whether inputs are kept.
    """

    rows: int = 400
    labelled: float = 1.0
    mix: dict[int, float] | None = None
    change: Change | None = None
    delay: float = 0.0
    mode: str = "outputs"
    variant: str = "default"

    def write(self, url: str, release: Path, workshop: Workshop, seed: int, at: float = 1e9) -> EventStore:
        """Answer ``rows`` random rows a second apart from ``at`` and return the store."""
        rng = np.random.default_rng(seed)
        weights = np.array([(self.mix or {}).get(int(label), 1.0) for label in workshop.labels])
        chosen = rng.choice(len(weights), self.rows, p=weights / weights.sum())
        images = workshop.images[chosen] if self.change is None else self.change(workshop.images[chosen])
        predictor = Predictor(release, threads=1)
        labels = predictor.signature["labels"]
        sampler = Sampler(share=1.0, mode=self.mode, load=1.0, waiting=self.rows)  # type: ignore[arg-type]
        sampler.serve({predictor.revision: release})
        calls = [self._answer(predictor, {"image": images[place : place + 1]}) for place in range(self.rows)]
        events = []
        for place, (outputs, seconds) in enumerate(calls):
            prediction = Prediction(
                f"{seed}-{place}", at + place, predictor.revision, self.variant, [labels[int(outputs.argmax())]],
                softmax(outputs), {"predict": seconds, "total": seconds + 2e-4},
            )  # fmt: skip
            drawn = sampler.offer(prediction, {"image": images[place : place + 1]})
            events.append(sampler.run(drawn))
        sampler.close()
        predictor.close()
        store = EventStore.open(url)
        store.write(events)
        told = np.flatnonzero(rng.random(self.rows) < self.labelled)
        if len(told):
            store.label([Label(f"{seed}-{place}", 0, labels[workshop.labels[chosen[place]]]) for place in told])
        return store

    def _answer(self, predictor: Predictor, inputs: Arrays) -> tuple[NDArray[Any], float]:
        import time

        started = time.perf_counter()
        outputs = next(iter(predictor.predict(inputs).values()))
        if self.delay:
            time.sleep(self.delay)
        return outputs, time.perf_counter() - started


def blurred(images: NDArray[Any]) -> NDArray[Any]:
    """Blur 8×8 images until digits are hard to tell apart."""
    return _each(images, lambda image: image.filter(ImageFilter.GaussianBlur(1.3)))


def rotated(images: NDArray[Any]) -> NDArray[Any]:
    """Rotate images by 40 degrees."""
    return _each(images, lambda image: image.rotate(40, resample=Image.Resampling.BILINEAR))


def _each(images: NDArray[Any], change: Callable[[Any], Any]) -> NDArray[Any]:
    low, high = images.min(), images.max()
    pixels = np.rint((images - low) / (high - low) * 255).astype(np.uint8)
    changed = np.stack([np.asarray(change(Image.fromarray(each[0], "L"))) for each in pixels])
    return (changed[:, None].astype(np.float32) / 255 * (high - low) + low).astype(np.float32)
