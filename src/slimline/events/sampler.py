"""Runs a share of the requests through every stage of the release's chain, behind the requests' back.

What each stage says about the same rows is what later tells which stage flipped an answer. Only outputs are kept,
unless the mode is ``sampled``, which keeps the rows themselves too.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from slimline import manifest
from slimline.events.records import Arrays, Prediction
from slimline.predictor import Predictor
from slimline.runtime_choice import measured_with

Mode = Literal["none", "outputs", "sampled"]


class Sampler:
    """Chooses rows and, in the writer's thread, asks every stage about them.

    ``share`` of the requests is sampled, ``rows`` of each at most, drawn at random; ``waiting`` bounds the chosen
    requests whose inputs are held in memory; ``load`` bounds the share of one core's time that the chain may take:
    after each run it rests. ``mode``: ``none`` samples nothing, ``outputs`` keeps the stages' outputs, ``sampled``
    keeps the inputs beside them. ``seed`` fixes the draws.
    """

    def __init__(
        self,
        *,
        share: float = 0.01,
        mode: Mode = "outputs",
        rows: int = 8,
        waiting: int = 16,
        load: float = 0.01,
        threads: int = 1,
        seed: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.share = 0.0 if mode == "none" else share
        self.mode, self.rows, self.waiting, self.load, self.threads = mode, rows, waiting, load, threads
        self._random = random.Random(seed)  # noqa: S311
        self._monotonic = monotonic
        self._resumes = 0.0
        self._waiting = 0
        self._lock = threading.Lock()
        self._releases: dict[str, Path] = {}
        self._chains: dict[str, dict[str, Predictor]] = {}

    def serve(self, releases: dict[str, Path]) -> None:
        """Say which releases answer now, as {revision: directory}; the chains of others are let go."""
        with self._lock:
            self._releases = dict(releases)

    def offer(self, prediction: Prediction, inputs: Arrays) -> Prediction:
        """Return the prediction, with the rows chosen and a copy of their inputs when it is drawn."""
        if self._random.random() >= self.share or self._waiting >= self.waiting:
            return prediction
        if prediction.revision not in self._releases or self._monotonic() < self._resumes:
            return prediction
        count = len(prediction.outputs)
        chosen = sorted(self._random.sample(range(count), min(count, self.rows)))
        kept = {name: np.array(array[chosen]) for name, array in inputs.items()}
        with self._lock:
            self._waiting += 1
        return replace(prediction, sampled=chosen, inputs=kept)

    def run(self, prediction: Prediction) -> Prediction:
        """Return a drawn prediction with every stage's outputs for its rows; slow, so the writer's thread does it."""
        started = self._monotonic()
        inputs = prediction.inputs or {}
        with self._lock:
            self._waiting = max(0, self._waiting - 1)
        try:
            chain = self._chain(prediction.revision)
            stages = {stage: _first(predictor.predict(inputs)) for stage, predictor in chain.items()}
        finally:
            ended = self._monotonic()
            self._resumes = ended + (ended - started) * (1 / self.load - 1)
        return replace(prediction, stages=stages, inputs=inputs if self.mode == "sampled" else None)

    def close(self) -> None:
        """Close every stage's predictor."""
        self.serve({})
        self._let_go()

    def _chain(self, revision: str) -> dict[str, Predictor]:
        self._let_go()
        if revision not in self._chains:
            release = self._releases[revision]
            card = manifest.read_json(release / "card.json")
            self._chains[revision] = {
                stage: Predictor(release / "chain" / stage, measured_with(card, stage), threads=self.threads)
                for stage in card["chain"]
            }
        return self._chains[revision]

    def _let_go(self) -> None:
        for revision in self._chains.keys() - self._releases.keys():
            for predictor in self._chains.pop(revision).values():
                predictor.close()


def _first(outputs: Arrays) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(next(iter(outputs.values())), np.float32)
