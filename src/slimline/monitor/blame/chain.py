"""A release's chain as blame reads it: the stages on the way to what is served, and what they said when it was made."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import benchmark, manifest, params, pipeline
from slimline.answers import Answers, softmax
from slimline.errors import SlimlineError
from slimline.params import Budget, Monitor
from slimline.predictor import Arrays, Predictor
from slimline.release import FORMAT
from slimline.runtime_choice import DEFAULT, measured_with

log = logging.getLogger(__name__)
Outputs = NDArray[np.float32]
Indices = NDArray[np.int64]
UNKNOWN = -1
NEAR = 0.1  # outputs without labels agree when no further apart than this part of their reference's standard deviation


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that went through every stage of a chain.

    ``ids`` [rows] names them (request, then the row's index within it), ``outputs`` {stage: [rows, k]} is what each
    stage said, ``labels`` [rows] the index of what was true, -1 where nobody knows. ``served`` [rows] is the index of
    the answer that was given, -1 where none was; ``inputs`` {input: [rows, …]} are there when they were kept.
    """

    ids: Sequence[str]
    outputs: Mapping[str, Outputs]
    labels: Indices
    served: Indices
    inputs: Arrays | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows have a label."""
        return self.labels >= 0


@dataclass(frozen=True, eq=False)
class Chain:
    """The stages of a release from the teacher to the one that is served, with its card.

    Each stage of ``line`` was made from the one before it. ``chosen`` stands in for the card's own section ``monitor``.
    """

    directory: Path
    revision: str
    card: Mapping[str, Any]
    line: tuple[str, ...]
    chosen: Monitor | None = None

    @classmethod
    def read(cls, release: Path, chosen: Monitor | None = None) -> Chain:
        """Read a release directory. Raises ArtifactError when it is damaged or from a newer version."""
        revision = manifest.verify(release)
        card = manifest.read_json(release / "card.json")
        manifest.check_format(card, release / "card.json", FORMAT)
        exported = set(card["chain"])
        line = tuple(each for each in pipeline.chain(card["params"], card["last"]) if each in exported)
        return cls(release, revision, card, line, chosen)

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Each stage after the first, with the one before it: (before, stage)."""
        return list(pairwise(self.line))

    @property
    def before(self) -> dict[str, str]:
        """{stage: the one before it}, the first aside."""
        return {stage: before for before, stage in self.steps}

    @property
    def teacher(self) -> str:
        """The first stage."""
        return self.line[0]

    @property
    def last(self) -> str:
        """The stage that is served."""
        return self.line[-1]

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """How each stage of ``line`` turns outputs into answers."""
        chain = self.directory / "chain"
        return {stage: Answers(manifest.read_json(chain / stage / "signature.json")) for stage in self.line}

    @property
    def labels(self) -> list[str] | None:
        """The task's labels, or None where answers are numbers."""
        return self.answers[self.last].labels

    @property
    def many(self) -> bool:
        """Whether any of several labels may be the answer: then no row counts as labelled, and agreement judges."""
        return self.answers[self.last].many

    @cached_property
    def budget(self) -> Budget:
        """The budget that the release was made with."""
        return params.parse(self.card["params"], self.directory / "card.json").budget

    @cached_property
    def objectives(self) -> Monitor:
        """What production is held to: what was chosen, or was to hold when the release was made."""
        return self.chosen or params.parse(self.card["params"], self.directory / "card.json").monitor

    def measured(self, stage: str) -> Mapping[str, Any]:
        """Return the benchmark's row of a stage."""
        row: Mapping[str, Any] = self.card["benchmark"]["stages"][stage]
        return row

    @cached_property
    def reference(self) -> Rows:
        """The release's reference rows, all labelled where each has one of the task's labels."""
        with manifest.arrays(self.directory / "reference.npz") as arrays:
            targets = arrays["targets"]
            outputs = {stage: arrays[f"output/{stage}"].reshape(len(targets), -1) for stage in self.line}
        count = len(targets)
        nobody = np.full(count, UNKNOWN)
        labels = targets.astype(np.int64) if self.labels and targets.ndim == 1 else nobody
        return Rows([f"reference/{row}" for row in range(count)], outputs, labels, nobody)

    def index(self, value: object) -> int:
        """Return the index of a label as the event store holds it, -1 when it is none of the task's, or of several."""
        found = self._places.get(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))
        return UNKNOWN if found is None else found

    @cached_property
    def _places(self) -> dict[str, int]:
        return {} if self.many else {label: at for at, label in enumerate(self.labels or [])}

    def agree(self, rows: Rows, before: str, stage: str) -> NDArray[np.bool_]:
        """Return [rows] whether two stages answer the same: the same label (or labels), or numbers within ``NEAR``."""
        one, other = rows.outputs[before], rows.outputs[stage]
        if self.labels:
            same: NDArray[np.bool_] = (self.answers[before].chosen(one) == self.answers[stage].chosen(other)).all(1)
            return same
        spread = self.reference.outputs[self.teacher].std(0)
        near: NDArray[np.bool_] = (np.abs(one - other) <= NEAR * np.maximum(spread, 1e-12)).all(1)
        return near

    def correct(self, rows: Rows, stage: str) -> NDArray[np.bool_]:
        """Return [rows] whether a stage's answer is the label; False where nobody knows."""
        right: NDArray[np.bool_] = rows.outputs[stage].argmax(1) == rows.labels
        return right

    def given(self, stage: str, outputs: Outputs) -> NDArray[np.bool_]:
        """Return [rows, labels] whether a stage's answer is, or holds, each label."""
        chosen, every = self.answers[stage].chosen(outputs), np.arange(len(self.labels or ()))
        return np.asarray(chosen if self.many else chosen == every)

    def confidence(self, stage: str, outputs: Outputs) -> NDArray[np.float32]:
        """Return [rows] a stage's largest probability; the outputs may be logits or probabilities."""
        if self.many:
            own = self.answers[stage]
            return np.asarray(own.scored({own.first: outputs})[1].max(1))
        sums = outputs.sum(1)
        normalized = bool((outputs >= 0).all() and np.allclose(sums, 1, atol=1e-3))
        found: NDArray[np.float32] = (outputs if normalized else softmax(outputs)).max(1)
        return found

    def predictor(self, stage: str, threads: int) -> Predictor:
        """Return a stage's exported model on the runtime that it was measured with."""
        return Predictor(self.directory / "chain" / stage, measured_with(self.card, stage), threads=threads)

    def replay(self, inputs: Arrays, stages: Sequence[str] | None = None) -> dict[str, Outputs]:
        """Return {stage: [rows, k]} what each stage's exported model says here and now, one thread each.

        Where its own runtime isn't there, as on a machine without the GPU, the default one answers.
        """
        found = {}
        for stage in self.line if stages is None else stages:
            try:
                predictor = self.predictor(stage, 1)
            except SlimlineError as error:
                log.warning("%s; its answers are replayed with %s", error, DEFAULT)
                predictor = Predictor(self.directory / "chain" / stage, DEFAULT, threads=1)
            try:
                raw = benchmark.outputs(predictor, inputs)
                found[stage] = raw.reshape(len(raw), -1).astype(np.float32)
            finally:
                predictor.close()
        return found
