from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from slimline import metrics, params
from slimline.errors import ExportError, ParamsError
from slimline.export import formats
from slimline.export.fp16 import OnnxFp16
from slimline.export.onnx_trt import OnnxTrt
from slimline.export.tensorrt import TensorRt
from slimline.params import Target
from slimline.task import Split
from slimline.tasks.digits import Digits

ForTensorRt = Callable[[str], tuple[nn.Module, Path]]


def exporters(document: dict[str, Any], *chosen: Any) -> dict[str, formats.Exporter]:
    document["export"]["formats"] = list(chosen)
    settings = params.parse(document)
    return formats.exporters(settings.export, Target(batch_sizes=[1, 4, 16]))


def test_formats_are_names_or_mappings_with_their_keys(document: dict[str, Any]) -> None:
    found = exporters(
        document, "onnx", "onnx-fp16", {"name": "onnx-trt", "fp16": True}, {"name": "tensorrt", "compute": [89]}
    )
    assert list(found) == ["onnx", "onnx-fp16", "onnx-trt", "tensorrt"]
    assert found["onnx-fp16"] == OnnxFp16()
    assert found["onnx-trt"] == OnnxTrt(fp16=True)
    assert found["tensorrt"] == TensorRt(compute=[89], batch_sizes=[1, 4, 16])


def test_an_engine_is_built_from_the_file_that_was_asked_for(document: dict[str, Any]) -> None:
    found = exporters(document, "tensorrt", {"name": "onnx-trt", "fp16": True}, "onnx")
    assert list(found) == ["onnx-trt", "onnx", "tensorrt"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"name": "tensorrt", "computes": [86]},
            "formats.1.computes: unknown key of 'tensorrt'. Did you mean 'compute'",
        ),
        (
            {"name": "tensorrt", "compute": [87]},
            "export.formats.1.compute.0: input should be 75, 80, 86, 89, 120 or 121",
        ),
        ({"name": "tensorrt", "compute": []}, "export.formats.1.compute: list should have at least 1 item"),
        ({"name": "onnx-trt", "max_drop": -1}, "export.formats.1.max_drop: input should be greater than or equal to 0"),
        ("onnx-tr", "export.formats.1: no plug-in 'onnx-tr'"),
        ({"nam": "onnx-trt"}, "export.formats.1.name: missing"),
        ("onnx", "export.formats.1: 'onnx' stands there twice"),
    ],
)
def test_mistakes_name_file_and_key(document: dict[str, Any], chosen: Any, message: str) -> None:
    with pytest.raises((ParamsError, formats.plugins.PluginError)) as caught:
        exporters(document, "onnx", chosen)
    assert str(caught.value).startswith("params.yaml: export.")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_function_takes_no_keys(document: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=r"export.formats.0.opset: unknown key; 'onnx' has none"):
        exporters(document, {"name": "onnx", "opset": 20})


def test_onnx_must_be_among_them(document: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=r"export.formats: add onnx"):
        exporters(document, "onnx-trt")


def test_accuracy_is_measured_again(for_tensorrt: ForTensorRt, task: Digits, splits: dict[str, Split]) -> None:
    model, path = for_tensorrt("cnn-linear")
    rows = splits["validation"]
    found = formats.complete(
        {"onnx-trt": {"file": path.name, "requantized": 9}, "odd": {"file": path.name, "engine": path.name}},
        path.parent, model, task, rows, task.signature(),
    )  # fmt: skip
    own = found["onnx-trt"]
    before = task.metrics(metrics.outputs(model, rows), rows.targets)["accuracy"]
    assert own["status"] == "run"
    assert own["bytes"] == path.stat().st_size
    assert own["validation"]["accuracy"] == pytest.approx(before - own["validation"]["drop"])
    assert own["validation"]["rows"] == len(rows)
    assert own["validation"]["agreement"] > 0.95
    assert found["odd"]["status"] == "built", "an engine is run by nothing here"
    assert "9 quantizers made symmetric, accuracy 0." in formats.describe(own, task.primary)
    better = own | {"validation": {"accuracy": 0.9, "rows": 40, "drop": -0.025}}
    assert formats.describe(better, task.primary).endswith("accuracy 0.9000 on 40 validation rows, gain 0.0250")


@pytest.mark.parametrize("higher", [True, False])
def test_a_drop_beyond_tolerance_is_an_error_of_one_line(
    for_tensorrt: ForTensorRt, task: Digits, splits: dict[str, Split], higher: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against perfect answers it loses accuracy; where less is better, losing is a gain."""
    path = for_tensorrt("resnet-linear")[1]
    rows = splits["validation"].head(100)
    perfect = np.eye(10, dtype=np.float32)[rows.targets]
    monkeypatch.setattr(Digits, "higher_is_better", higher)
    if not higher:
        assert formats.measure(path, task, rows, perfect, {}, max_drop=0.0)["drop"] < 0
        return
    with pytest.raises(ExportError, match=r"model.trt.onnx: accuracy is 0.\d+ on 100 validation rows") as caught:
        formats.measure(path, task, rows, perfect, {}, max_drop=0.01)
    assert "torch's is 1.0000" in str(caught.value)
    assert "\n" not in str(caught.value)


class OneWins(Digits):
    """Digits whose outputs are read by a decision: the label that the signature names wins."""

    def decided(self, out: NDArray[Any], signature: Mapping[str, Any]) -> NDArray[Any]:
        return np.asarray(out + 1e6 * np.eye(10)[signature["wins"]])


def test_answers_are_decided_as_they_are_served(for_tensorrt: ForTensorRt, splits: dict[str, Split]) -> None:
    """Both sides were judged at raw outputs, while a release answers by what its signature says."""
    model, path = for_tensorrt("cnn-linear")
    rows = splits["validation"]
    found = formats.complete({"onnx-trt": {"file": path.name}}, path.parent, model, OneWins(), rows, {"wins": 3})
    share = float(np.mean(rows.targets == 3))
    measured = {"accuracy": pytest.approx(share), "drop": 0, "agreement": 1, "rows": len(rows)}
    assert found["onnx-trt"]["validation"] == measured
