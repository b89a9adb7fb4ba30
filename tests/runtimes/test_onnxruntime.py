from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline.errors import ArtifactError, InputError
from slimline.export.onnx import export
from slimline.models.cnn import Cnn
from slimline.runtimes.onnxruntime import OnnxRuntime, OnnxRuntimeRows
from slimline.tasks.digits import Digits


@pytest.mark.parametrize("threads", [1, 2, None], ids=str)
def test_outputs_come_by_name(cnn: Cnn, task: Digits, tmp_path: Path, threads: int | None) -> None:
    export(cnn, task.signature(), tmp_path, {})
    runtime = OnnxRuntime(tmp_path, threads)
    found = runtime.run({"image": np.zeros((3, 1, 8, 8), np.float32)})
    assert {name: array.shape for name, array in found.items()} == {"logits": (3, 10)}
    runtime.close()


@pytest.mark.parametrize("raw", [None, b"", b"no model"], ids=["missing", "empty", "text"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, raw: bytes | None) -> None:
    if raw is not None:
        (tmp_path / "model.onnx").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"model.onnx: ONNX Runtime can't load it"):
        OnnxRuntime(tmp_path, 1)


def test_a_number_that_no_row_of_an_embedding_has_is_the_callers_mistake(text_release: Path) -> None:
    runtime = OnnxRuntime(text_release / "chain" / "teacher", 1)
    with pytest.raises(InputError, match=r"^the model can't take these values: indices element out of data bounds"):
        runtime.run({"input_ids": np.array([[99_999_999]])})


@pytest.mark.parametrize("threads", [1, 2, 3, None], ids=str)
def test_shared_rows_are_answered_in_their_order(cnn: Cnn, task: Digits, tmp_path: Path, threads: int | None) -> None:
    export(cnn, task.signature(), tmp_path, {})
    whole, shared = OnnxRuntime(tmp_path, 1), OnnxRuntimeRows(tmp_path, threads)
    images = np.random.default_rng(0).random((7, 1, 8, 8), dtype=np.float32)
    for rows in (1, 2, 3, 7):
        expected = whole.run({"image": images[:rows]})["logits"]
        np.testing.assert_allclose(shared.run({"image": images[:rows]})["logits"], expected, atol=1e-5)
    with ThreadPoolExecutor(4) as callers:  # who also share the threads
        found = list(callers.map(lambda at: shared.run({"image": images[at : at + 3]})["logits"], range(4)))
    for at, each in enumerate(found):
        np.testing.assert_allclose(each, whole.run({"image": images[at : at + 3]})["logits"], atol=1e-5)
    shared.close()


@pytest.mark.parametrize("bad", [0, 3], ids=["in the first share", "in the last"])
def test_a_mistake_in_any_share_is_the_callers(text_release: Path, bad: int) -> None:
    ids = np.ones((4, 2), np.int64)
    ids[bad] = 99_999_999
    runtime = OnnxRuntimeRows(text_release / "chain" / "teacher", 2)
    with pytest.raises(InputError, match="the model can't take these values"):
        runtime.run({"input_ids": ids})
    assert runtime.run({"input_ids": np.ones((4, 2), np.int64)})["logits"].shape[0] == 4


def test_threads_that_share_rows_keep_to_cores_of_their_own(cnn: Cnn, task: Digits, tmp_path: Path) -> None:
    export(cnn, task.signature(), tmp_path, {})
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core is nobody's own")
    runtime = OnnxRuntimeRows(tmp_path, 2)
    together = threading.Barrier(2)
    run = runtime._runtime.run

    def seen(inputs: dict[str, Any]) -> dict[str, Any]:
        kept.append(os.sched_getaffinity(0))
        together.wait(10)  # each share has a thread
        return run(inputs)

    kept: list[set[int]] = []
    runtime._runtime.run = seen  # type: ignore[method-assign]
    runtime.run({"image": np.zeros((4, 1, 8, 8), np.float32)})
    first, second = kept
    assert first.isdisjoint(second)
    assert first | second == cores == os.sched_getaffinity(0)
    runtime.close()
