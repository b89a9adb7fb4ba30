"""Real releases, real stores, and traffic whose answers are right as often as a test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline import manifest
from slimline.answers import softmax
from slimline.events import EventStore, Label, Prediction, new_id
from slimline.predictor import Predictor
from slimline.task import Split

LABELS = [str(digit) for digit in range(10)]
Send = Callable[..., list[Prediction]]


@pytest.fixture(scope="session")
def answered(two_releases: tuple[Path, Path], splits: dict[str, Split]) -> tuple[Any, Any, Any]:
    """What the release says about real rows: (probabilities [rows, 10], its answers [rows], the truth [rows])."""
    predictor = Predictor(two_releases[0])
    split = splits["validation"]
    outputs = next(iter(predictor.predict(dict(split.inputs)).values()))
    predictor.close()
    probabilities = softmax(outputs)
    return probabilities.astype(np.float32), probabilities.argmax(1), np.asarray(split.targets)


@pytest.fixture(scope="session")
def watched_releases(
    two_releases: tuple[Path, Path], answered: tuple[Any, Any, Any], resealed: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:  # fmt: skip
    """Two releases of the same answers, held to a tenth less than the recalls that were measured."""
    folder = tmp_path_factory.mktemp("watched")
    _, answers, truth = answered
    of_class = [truth == digit for digit in range(10)]
    recalls = {
        label: {"rows": int(own.sum()), "recall": float((answers[own] == digit).mean()), "agreement": 1.0}
        for digit, (label, own) in enumerate(zip(LABELS, of_class, strict=True))
    }

    def change(seed: int) -> Callable[[Path, dict[str, Any]], None]:
        def alter(_: Path, card: dict[str, Any]) -> None:
            card["params"] |= {"seed": seed, "budget": {"max_drop": {"accuracy": 0.1}}}
            for row in card["benchmark"]["stages"].values():
                row |= {"accuracy": float((answers == truth).mean()), "per_class": recalls}

        return alter

    first, second = (resealed(two_releases[0], folder / name, change(seed)) for seed, name in enumerate(("one", "two")))
    return first, second


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a store that is there and empty."""
    made = f"sqlite:///{tmp_path / 'events.db'}"
    EventStore.open(made).close()
    return made


@pytest.fixture(scope="session")
def send(answered: tuple[Any, Any, Any], watched_releases: tuple[Path, Path]) -> Send:
    """Write traffic into a store, labelled as soon as it is answered.

    ``send(store, 500, wrong=0.3)``: three tenths of 500 requests are answered as the last stage of a bad release would,
    with another label than its teacher's; a tenth goes through the whole chain.
    """
    revision = manifest.digest(watched_releases[0])

    def write(
        store: EventStore, count: int, *, start: float = 1e9, wrong: float = 0.0, seed: int = 0, pace: float = 0.01,
        seconds: float = 0.0001, labelled: bool = True, **other: Any,
    ) -> list[Prediction]:  # fmt: skip
        rng = np.random.default_rng(seed)
        probabilities, _, truth = answered
        rows = rng.integers(0, len(truth), count)
        flipped = rng.random(count) < wrong
        predictions, labels = [], []
        for number, (row, flip) in enumerate(zip(rows, flipped, strict=True)):
            teacher = probabilities[row : row + 1]
            own = np.roll(teacher, 1, axis=1) if flip else teacher
            known: dict[str, Any] = {
                "id": new_id(), "time": start + number * pace, "revision": revision, "variant": "main",
                "labels": [LABELS[own[0].argmax()]], "outputs": own,
                "latency": {"predict": seconds, "total": seconds * 1.5},
            }  # fmt: skip
            if number % 10 == 0:
                stages = {"teacher": teacher, "distill": own}  # a stage says logits, the endpoint probabilities
                known |= {"sampled": [0], "stages": {stage: np.log(said + 1e-12) for stage, said in stages.items()}}
            predictions.append(Prediction(**(known | other)))
            labels.append(Label(known["id"], 0, LABELS[truth[row]], known["time"] + 1))
        store.write(predictions)
        if labelled:
            store.label(labels)
        return predictions

    return write
