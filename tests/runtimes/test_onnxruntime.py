from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimline.errors import ArtifactError, InputError
from slimline.export.onnx import export
from slimline.models.cnn import Cnn
from slimline.runtimes.onnxruntime import OnnxRuntime
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
