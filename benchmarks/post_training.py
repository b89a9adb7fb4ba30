"""What other tools' quantizers make of an ONNX file, by the settings that their documentation offers.

    dynamic, static   ONNX Runtime's own
    nncf              NNCF's, with its fast bias correction; the full one fails on ONNX

Each takes a stage, whose calibration rows it may use, the file that it reads and the one that it writes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from slimline.stage import Stage
from slimline.task import Split

BATCH = 100


def dynamic(stage: Stage, source: Path, target: Path) -> None:
    """Write the model with int8 weights, its inputs quantized as they come.

    Weights are uint8: ONNX Runtime's integer convolution of the dynamic form takes no others.
    """
    from onnxruntime import quantization

    del stage  # nothing is calibrated
    with _prepared(source) as prepared:
        quantization.quantize_dynamic(prepared, target.resolve(), weight_type=quantization.QuantType.QUInt8)


def static(stage: Stage, source: Path, target: Path, calibrator: str = "MinMax") -> None:
    """Write the model in QDQ form, calibrated on every calibration row.

    Weights are int8 per channel and activations uint8, as its documentation advises for convolutions on x86.
    """
    from onnxruntime import quantization

    class Rows(quantization.CalibrationDataReader):
        """The calibration split, batch by batch."""

        def __init__(self) -> None:
            self._all = list(feeds(stage.splits["calibration"], BATCH))
            self._feeds = iter(self._all)

        def __len__(self) -> int:
            return len(self._all)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._feeds = iter(self._all[start_index:end_index])

        def get_next(self) -> dict[str, Any] | None:  # type: ignore[override]
            return next(self._feeds, None)

    rows = Rows()
    with _prepared(source) as prepared:
        quantization.quantize_static(
            prepared, target.resolve(), rows, quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[calibrator],
            extra_options={"CalibStridedMinMax": 1},  # a batch at a time: it would keep what all of them made
        )  # fmt: skip


def nncf(stage: Stage, source: Path, target: Path, preset: str | None = None) -> None:
    """Write the model quantized by NNCF on every calibration row: as ONNX, or for OpenVINO where ``target`` is .xml.

    Texts are read by transformers, for which it has settings of its own. Without ``preset`` it chooses that too.
    """
    os.environ.setdefault("NNCF_CI", "1")  # it then sends no usage data
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    rows = list(feeds(stage.splits["calibration"], 1))

    def quantized(model: Any) -> Any:
        return nncf.quantize(
            model, nncf.Dataset(rows), preset=preset and nncf.QuantizationPreset(preset), subset_size=len(rows),
            target_device=nncf.TargetDevice.CPU,
            model_type=nncf.ModelType.TRANSFORMER if stage.params.task.name == "text" else None,
        )  # fmt: skip

    if target.suffix == ".xml":
        import openvino

        openvino.save_model(quantized(openvino.Core().read_model(source)), target, compress_to_fp16=False)
    else:
        import onnx

        onnx.save(quantized(onnx.load(source)), target)


def feeds(rows: Split, size: int) -> Iterator[dict[str, Any]]:
    """Yield the inputs of ``rows``, ``size`` at a time."""
    for start in range(0, len(rows), size):
        yield dict(rows[slice(start, start + size)][0])


@contextmanager
def _prepared(source: Path) -> Iterator[Path]:
    """Yield the model after ONNX Runtime's own preprocessing, in a folder that takes what it leaves behind."""
    from onnxruntime import quantization

    source = source.resolve()
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        with chdir(folder):  # where it gives up its large weights stay in the working directory
            try:
                quantization.quant_pre_process(source, prepared)
            except Exception:  # noqa: BLE001  (its symbolic shapes give up on an encoder's free axes, with a plain one)
                quantization.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        yield prepared
