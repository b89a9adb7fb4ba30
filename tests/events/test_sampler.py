"""A share of the rows goes through every stage of a real release, behind the requests' back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline import manifest, release
from slimline.events import EventStore, EventWriter, Prediction, Sampler
from slimline.export.onnx import export
from slimline.models.cnn import Cnn
from slimline.predictor import Predictor
from slimline.task import Split
from slimline.tasks.digits import Digits
from tests.events.conftest import Make

CHAIN = ["teacher", "prune"]


@pytest.fixture(scope="module")
def released(
    _trained_cnn: Cnn, task: Digits, splits: dict[str, Split], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A release of two stages that answer differently: a trained net, and one that knows nothing."""
    root = tmp_path_factory.mktemp("released")
    for stage, model in zip(CHAIN, (_trained_cnn, Cnn(width=4).eval()), strict=True):
        with manifest.sealed(root / stage) as scratch:
            export(model, task.signature(), scratch, {})
            manifest.write_json(scratch / "signature.json", task.signature())
            manifest.write_json(scratch / "preprocess.json", task.preprocess())
    row = {"accuracy": 0.9, "agreement": 1.0, "latency_ms": {}, "threads": 1}
    measured = {"stages": dict.fromkeys(CHAIN, row)}
    release.build(root / "release", root, CHAIN, measured, {"task": {"name": "digits"}}, splits["validation"], [])
    return root / "release"


@pytest.fixture
def images(splits: dict[str, Split]) -> NDArray[np.float32]:
    array: NDArray[np.float32] = splits["validation"].inputs["image"][:20].copy()
    return array


@pytest.fixture
def sampler(released: Path) -> Iterator[Sampler]:
    made = Sampler(share=1.0, rows=4, load=1.0, seed=0)
    made.serve({manifest.digest(released): released})
    yield made
    made.close()


def answered(make: Make, released: Path, images: NDArray[np.float32], number: int = 0) -> Prediction:
    predictor = Predictor(released, threads=1)
    outputs = predictor.predict({"image": images})["logits"]
    predictor.close()
    labels = [str(each) for each in outputs.argmax(1)]
    return make(f"p{number}", revision=manifest.digest(released), labels=labels, outputs=outputs)


def test_every_stage_answers_the_chosen_rows(
    sampler: Sampler, released: Path, images: NDArray[np.float32], make: Make, sqlite_url: str
) -> None:
    writer = EventWriter(sqlite_url, interval=0.01, sampler=sampler)
    prediction = answered(make, released, images)
    assert writer.put(prediction, {"image": images})
    assert writer.close(20.0)
    with EventStore.open(sqlite_url) as store:
        (kept,) = store.predictions(sampled=True)
    assert kept.sampled is not None
    assert kept.stages is not None
    assert len(kept.sampled) == 4
    assert sorted(kept.stages) == sorted(CHAIN)
    for stage in CHAIN:
        predictor = Predictor(released / "chain" / stage, threads=1)
        expected = predictor.predict({"image": images[kept.sampled]})["logits"]
        predictor.close()
        np.testing.assert_allclose(kept.stages[stage], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(kept.stages["prune"], prediction.outputs[kept.sampled], rtol=1e-4, atol=1e-4)
    assert kept.inputs is None  # outputs only, unless told otherwise


def test_inputs_are_kept_when_told_so(released: Path, images: NDArray[np.float32], make: Make, sqlite_url: str) -> None:
    sampler = Sampler(share=1.0, rows=3, mode="sampled")
    sampler.serve({manifest.digest(released): released})
    writer = EventWriter(sqlite_url, interval=0.01, sampler=sampler)
    writer.put(answered(make, released, images), {"image": images})
    images[:] = 0  # the request's arrays belong to the request
    assert writer.close(20.0)
    sampler.close()
    with EventStore.open(sqlite_url) as store:
        (kept,) = store.predictions(sampled=True)
    assert kept.inputs is not None
    assert kept.inputs["image"].shape == (3, 1, 8, 8)
    assert kept.inputs["image"].any()


def test_mode_none_and_other_revisions_are_left_alone(
    sampler: Sampler, released: Path, images: NDArray[np.float32], make: Make
) -> None:
    prediction = answered(make, released, images)
    none = Sampler(share=1.0, mode="none")
    none.serve({prediction.revision: released})
    assert none.offer(prediction, {"image": images}) is prediction
    assert sampler.offer(make("x"), {"image": images}).sampled is None
    sampler.serve({})
    assert sampler.offer(prediction, {"image": images}) is prediction


def test_about_the_share_that_was_asked_for(released: Path, images: NDArray[np.float32], make: Make) -> None:
    sampler = Sampler(share=0.1, seed=1, waiting=10_000)
    sampler.serve({manifest.digest(released): released})
    prediction = answered(make, released, images)
    drawn = sum(sampler.offer(prediction, {"image": images}).sampled is not None for _ in range(2000))
    assert 150 <= drawn <= 250  # 200, standard deviation 13


def test_few_wait_at_a_time(sampler: Sampler, released: Path, images: NDArray[np.float32], make: Make) -> None:
    """Inputs may be large: what isn't run yet is bounded."""
    prediction = answered(make, released, images)
    offered = [sampler.offer(prediction, {"image": images}) for _ in range(40)]
    assert sum(each.sampled is not None for each in offered) == 16
    sampler.run(offered[0])
    assert sampler.offer(prediction, {"image": images}).sampled is not None


def test_the_chain_takes_its_share_of_a_core_alone(released: Path, images: NDArray[np.float32], make: Make) -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 0.5  # run() looks at the clock twice: it took half a second
        return now[0]

    sampler = Sampler(share=1.0, load=0.1, monotonic=tick)
    sampler.serve({manifest.digest(released): released})
    prediction = answered(make, released, images)
    sampler.run(sampler.offer(prediction, {"image": images}))
    ended = now[0]
    while (offered := sampler.offer(prediction, {"image": images})).sampled is None:
        pass
    assert now[0] - ended == pytest.approx(4.5, abs=0.5)  # 0.5 s of work in 5 s
    sampler.run(offered)
    sampler.close()


def test_a_damaged_stage_costs_the_sample_not_the_answer(
    released: Path, images: NDArray[np.float32], make: Make, sqlite_url: str, tmp_path: Path
) -> None:
    import shutil

    broken = shutil.copytree(released, tmp_path / "release")
    prediction = answered(make, released, images)
    (broken / "chain/teacher/model.onnx").write_bytes(b"nonsense")
    sampler = Sampler(share=1.0)
    sampler.serve({prediction.revision: broken})
    told: list[int] = []
    writer = EventWriter(sqlite_url, interval=0.01, sampler=sampler, on_failed_sample=told.append)
    assert writer.put(prediction, {"image": images})
    assert writer.put(make("bad", revision=prediction.revision, outputs=np.ones((3, 2))), {"image": images[:1]})
    assert writer.close(20.0)
    assert (writer.written, writer.dropped) == (2, {})
    assert writer.failed_samples == sum(told) == 2
    with EventStore.open(sqlite_url) as store:
        assert list(store.predictions(sampled=True)) == []


def test_it_runs_in_the_writers_thread(
    sampler: Sampler, released: Path, images: NDArray[np.float32], make: Make, sqlite_url: str
) -> None:
    threads: list[str] = []

    class Watched(Sampler):
        def run(self, prediction: Prediction) -> Prediction:
            threads.append(threading.current_thread().name)
            return super().run(prediction)

    watched: Any = Watched(share=1.0)
    watched.serve({manifest.digest(released): released})
    writer = EventWriter(sqlite_url, interval=0.01, sampler=watched)
    writer.put(answered(make, released, images), {"image": images})
    assert writer.close(20.0)
    assert threads == ["event-writer"]
