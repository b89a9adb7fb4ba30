"""A release in memory, ready to answer: verified, its golden requests answered in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import goldens, manifest, preprocess
from slimline.answers import Answers
from slimline.benchmark import machine
from slimline.endpoint.batching import Batcher, batch_limit
from slimline.endpoint.limits import Limits
from slimline.endpoint.metrics import Metrics, Series
from slimline.endpoint.speed import Speed
from slimline.predictor import Arrays, Predictor
from slimline.release import FORMAT
from slimline.tokens import fills

WARM_UP = 10
SAME = 1e-3  # of the largest output: float sums in another order
INDICES, RECORDED = "slimline:indices", "slimline:recorded"  # beside the model's own outputs

log = logging.getLogger(__name__)


class Loaded:
    """One release, its runtime and its queue.

    Threads are those the release was measured with, unless ``threads`` says otherwise. Raises ArtifactError when a
    file is damaged or the golden requests aren't answered as they were when the release was made.
    """

    def __init__(
        self,
        directory: Path,
        variant: str,
        limits: Limits,
        metrics: Metrics,
        *,
        threads: int | None = None,
        runtime: str = "auto",
        max_batch: int = 64,
        trust: Collection[str] = (),
        inline: bool = True,
    ) -> None:
        card = manifest.read_json(directory / "card.json")
        manifest.check_format(card, directory / "card.json", FORMAT)
        self.card: dict[str, Any] = card
        self.directory = directory
        self.trust = tuple(trust)
        measured = card["benchmark"]["stages"][card["last"]]
        self.threads = threads or measured["threads"]
        self.predictor = Predictor(directory, runtime, self.threads)
        try:
            self.revision = self.predictor.revision
            self.signature = self.predictor.signature
            self.preprocess: dict[str, Any] = preprocess.read(directory / "chain" / card["last"])
            preprocess.load(self.preprocess, self.trust)
            self.answers = Answers(self.signature)
            self.specs = {spec["name"]: spec for spec in self.signature["inputs"]}
            self.speed = Speed(measured["latency_ms"] if runtime == "auto" else {})
            self.agreement = goldens.check(self.predictor, directory)
            self._warm()
        except BaseException:
            self.predictor.close()
            raise
        batch = batch_limit(self.signature, self.speed.best_rows(max_batch))
        self.batcher = Batcher(
            self.predictor.runtime.run, self.speed, max_rows=batch, max_waiting=limits.max_waiting_rows,
            max_wait=limits.answer_seconds,
            inline=inline and "://" not in runtime,  # a remote one may be gone, which the event loop must not wait for
            name=self.short, finish=self._scored, fills=self._fills(),
        )  # fmt: skip
        self.variant = variant
        held, many = objectives(directory), self.answers.many
        self.series = Series(metrics, self.revision, variant, self.answers.labels, held, many=many)
        self.in_use = 0
        self._look: asyncio.Task[bool] | None = None
        if risk := goldens.risk(card["benchmark"].get("machine", {}), machine()):
            log.warning("release %s: %s", self.short, risk)

    @property
    def short(self) -> str:
        """The first 12 hex digits of the revision, as people read it."""
        return self.revision.removeprefix("sha256:")[:12]

    @property
    def task(self) -> str:
        """The name of the task that the release was made for."""
        name: str = self.card["task"]["name"]
        return name

    def _scored(self, outputs: Arrays) -> Arrays:
        """Add what every request needs of its outputs: over a whole batch it costs little more than over a row."""
        indices, recorded = self.answers.scored(outputs)
        return {**outputs, INDICES: indices, RECORDED: recorded}

    def answered(self, outputs: Arrays) -> tuple[list[str] | None, NDArray[np.float32]]:
        """Take out of a request's ``outputs`` what ``_scored`` added: a label a row (or None), what is recorded."""
        return self.answers.named(outputs.pop(INDICES), outputs.pop(RECORDED))

    def _fills(self) -> dict[str, int]:
        """Return what may fill up rows: nothing where the model's answer changes by it, as by ranges of each batch."""
        found = fills(self.preprocess, self.signature)
        if not found:
            return {}
        name = self.preprocess["input"]
        inputs, _ = goldens.read(self.directory, self.card["last"])
        lengths = (inputs[name] != found[name]).sum(1)
        row = {each: array[lengths.argmin()][None] for each, array in inputs.items()}
        filled = self.predictor.predict(row)
        alone = self.predictor.predict({each: array[:, : lengths.min()] for each, array in row.items()})
        near = all(np.allclose(filled[each], alone[each], atol=SAME * np.abs(alone[each]).max()) for each in alone)
        return found if near else {}

    def _warm(self) -> None:
        """Run single rows until memory is laid out and the speed here is known."""
        inputs, _ = goldens.read(self.directory, self.card["last"])
        single = {name: array[:1] for name, array in inputs.items()}
        for _ in range(WARM_UP):
            start = perf_counter()
            self.predictor.predict(single)
            self.speed.observe(1, perf_counter() - start)

    async def is_ready(self) -> bool:
        """Return whether the runtime would answer: a remote one is looked at, once for all who ask meanwhile."""
        look = getattr(self.predictor.runtime, "is_ready", None)
        if look is None:
            return True
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(asyncio.to_thread(look))
        return await asyncio.shield(self._look)

    async def retire(self) -> None:
        """Close once nobody uses it any more."""
        while self.in_use or not self.batcher.idle:
            await asyncio.sleep(0.05)
        self.close()

    def close(self) -> None:
        """Give back the runtime and the worker thread; what was counted is kept."""
        self.series.flush()
        self.batcher.close()
        self.predictor.close()


def objectives(directory: Path) -> dict[str, float]:
    """Return {part of a request: seconds} that a release is held to; none where nothing was made to watch it."""
    path = directory / "monitoring" / "objectives.json"
    held = manifest.read_json(path)["latency"] if path.is_file() else {}
    return {part: each["seconds"] for part, each in held.items()}
