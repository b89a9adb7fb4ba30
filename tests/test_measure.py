from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimline import latency, measure, metrics, plugins, runtime_choice
from slimline.latency import Samples
from slimline.models.cnn import Cnn
from slimline.params import Target
from slimline.quantization.grids import Spec
from slimline.quantization.quantizers import quantize_layer
from slimline.runtime_choice import BY_ROWS, DEFAULT
from slimline.task import Split
from slimline.tasks.digits import Digits
from tests.encoders import LABELS, texts, write_encoder, write_table

TARGET = Target(batch_sizes=[1, 4])
OPENVINO = ("openvino", "openvino-bf16")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), (4, 8, 8)),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4), (4, 8, 8)),
        (nn.Linear(16, 8), (16,)),
        (nn.Sequential(nn.Linear(16, 4), nn.Linear(4, 8)), (16,)),
    ],
    ids=["conv", "depthwise", "linear", "factors"],
)
def test_layers_are_timed_alone(layer: nn.Module, shape: tuple[int, ...]) -> None:
    variants = {"float": layer}
    if not isinstance(layer, nn.Sequential):
        variants["int8"] = quantize_layer(layer, Spec(axis=0), Spec(scheme="linear"))
    found = measure.layers(variants, shape, TARGET)
    assert set(found) == set(variants)
    assert all(seconds[batch] > 0 for seconds in found.values() for batch in (1, 4))


def test_models_are_timed_as_exported(cnn: Cnn, task: Digits, splits: dict[str, Split]) -> None:
    found = measure.models({"a": cnn, "b": Cnn(width=4)}, task.signature(), splits["calibration"], TARGET)
    assert set(found) == {"a", "b"}
    assert all(isinstance(found[name][batch], Samples) for name in found for batch in (1, 4))


def test_models_are_timed_on_the_runtime_that_each_runs_best_on(
    cnn: Cnn, task: Digits, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {f"a on {DEFAULT}": 4.0, f"a on {BY_ROWS}": 3.0, f"b on {DEFAULT}": 2.0, f"b on {BY_ROWS}": 5.0}
    asked: list[dict[str, Any]] = []

    def measured(models: Any, inputs: Any, **settings: Any) -> Any:
        asked.append(settings)
        for run in models.values():
            run(inputs[1])
        assert set(models) == seconds.keys()
        return {job: {1: Samples(np.full((2, 2), took))} for job, took in seconds.items()}

    monkeypatch.setattr(runtime_choice, "candidates", lambda _runtime, _threads: [DEFAULT, BY_ROWS])
    monkeypatch.setattr(latency, "measure", measured)
    target = Target(batch_sizes=[1, 4], runtime="auto", threads=2)
    with measure.exported({"a": cnn, "b": Cnn(width=4)}, task.signature()) as folders:
        best, runtimes = measure.on_best(folders, task.signature(), splits["calibration"], target)
    assert {name: by_batch[1].p50 for name, by_batch in best.items()} == {"a": 3.0, "b": 2.0}
    assert runtimes == {"a": BY_ROWS, "b": DEFAULT}
    assert len(asked) == 1, "within one measurement's time, interleaved"


def test_an_export_answers_as_its_model_does(cnn: Cnn, task: Digits, splits: dict[str, Split]) -> None:
    with measure.exported({"a": cnn.eval()}, task.signature()) as folders:
        found = measure.outputs(folders["a"], splits["validation"], Target(runtime="auto"))
    np.testing.assert_allclose(found, metrics.outputs(cnn, splits["validation"]), atol=1e-4)


def test_on_a_runtime_that_computes_as_another_does_models_are_not_timed_again(
    cnn: Cnn, task: Digits, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Openvino:
        computes_in = "f32"

        def __init__(self, *_: Any) -> None: ...

        def run(self, inputs: Any) -> Any:
            return inputs

        def close(self) -> None: ...

    find = plugins.find
    jobs: list[str] = []
    monkeypatch.setattr(
        plugins, "find", lambda kind, name, **more: Openvino if name in OPENVINO else find(kind, name, **more)
    )
    monkeypatch.setattr(runtime_choice, "candidates", lambda _runtime, _threads: [DEFAULT, *OPENVINO])

    def measured(models: Any, *_: Any, **__: Any) -> Any:
        jobs.extend(models)
        return {job: {1: Samples(np.ones((2, 2)))} for job in models}

    monkeypatch.setattr(latency, "measure", measured)
    with measure.exported({"a": cnn}, task.signature()) as folders:
        _, runtimes = measure.on_best(folders, task.signature(), splits["calibration"], Target(runtime="auto"))
    assert jobs == [f"a on {DEFAULT}", "a on openvino"]
    assert runtimes == {"a": DEFAULT}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """The inputs of the last measurement, by batch size."""
    seen: dict[int, Any] = {}

    def watched(models: Any, inputs: Any, **settings: Any) -> Any:
        seen.update(inputs)
        return measure_whole(models, inputs, **settings)

    measure_whole = latency.measure
    monkeypatch.setattr(latency, "measure", watched)
    return seen


def test_rows_of_one_size_are_timed_as_the_first_ones(
    cnn: Cnn, task: Digits, splits: dict[str, Split], timed: dict[int, Any]
) -> None:
    measure.models({"a": cnn}, task.signature(), splits["calibration"], TARGET)
    rows, _ = splits["calibration"][slice(0, 4)]
    assert {size: batch.keys() for size, batch in timed.items()} == {1: rows.keys(), 4: rows.keys()}
    for size, batch in timed.items():
        np.testing.assert_array_equal(batch["image"], rows["image"][:size])


def test_texts_are_timed_at_their_own_lengths(tmp_path: Path, timed: dict[int, Any]) -> None:
    pytest.importorskip("transformers")
    from slimline.models.hf_encoder import HfEncoder
    from slimline.tasks.text import text

    write_encoder(tmp_path / "model")
    cut = [
        " ".join(each.split()[: 4 + at % 5]) if at % 8 else f"{each} " * 3 for at, (each, _) in enumerate(texts(300))
    ]
    mixed = [(each, label) for each, (_, label) in zip(cut, texts(300), strict=True)]
    with chdir(tmp_path):
        write_table(tmp_path / "t.csv", mixed)
        task = text(data="t.csv", tokenizer="model", labels=list(LABELS), max_length=32)
        split = task.splits()["calibration"]
        model = HfEncoder("model", classes=len(LABELS)).eval()
        measure.models({"a": model}, task.signature(), split, TARGET)
    expected = latency.typical_batches(split, [1, 4], measure.MODEL_REPEATS, seed=0)
    for size, batches in expected.items():
        assert len(timed[size]) == measure.MODEL_REPEATS
        for own, batch in zip(timed[size], batches, strict=True):
            np.testing.assert_array_equal(own["input_ids"], batch["input_ids"])
    longest = int((split.inputs["input_ids"] != 0).sum(1).max())
    alone = [each["input_ids"].shape[1] for each in timed[1]]
    assert len(set(alone)) > 3
    assert sorted(alone)[len(alone) // 2] <= longest / 2


@pytest.mark.parametrize(("threads", "waits"), [(1, False), (2, True)])
def test_only_a_runtime_with_a_pool_of_threads_is_waited_for(
    threads: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("slimline.latency.time.sleep", slept.append)
    measure.layers({"whole": nn.Linear(4, 4)}, (4,), TARGET.model_copy(update={"threads": threads}))
    assert slept
    assert any(slept) is waits


def test_gain_is_a_geometric_mean() -> None:
    assert measure.gain({1: 4.0, 8: 1.0}, {1: 1.0, 8: 1.0}) == pytest.approx(2)


def test_input_shapes_are_seen_in_a_forward_run(cnn: Cnn) -> None:
    assert measure.input_shapes(cnn, ["0", "3", "11"], {"image": torch.zeros(2, 1, 8, 8)}) == {
        "0": (1, 8, 8), "3": (8, 8, 8), "11": (32,),
    }  # fmt: skip


def test_layers_are_timed_at_the_median_length() -> None:
    ids = np.zeros((5, 12), np.int64)
    for row, length in enumerate((12, 2, 3, 4, 11)):
        ids[row, :length] = 1
    both = {"ids": ids, "types": np.ones_like(ids)}
    found = measure.typical_inputs(Split(both, np.zeros(5), padding=("ids", 0)))
    assert {name: tuple(each.shape) for name, each in found.items()} == {"ids": (1, 4), "types": (1, 4)}
    assert measure.typical_inputs(Split(both, np.zeros(5)))["ids"].shape == (1, 12)
