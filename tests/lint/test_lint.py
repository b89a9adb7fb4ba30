from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from slimline.cli import main
from slimline.errors import ArtifactError, InputError
from slimline.lint import lint

from .models import convolution


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code of the slimline command."""
    monkeypatch.setattr("sys.argv", ["slimline", "lint", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_findings_are_lines_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(convolution(bias="int32"), tmp_path / "bad.onnx")
    assert run(monkeypatch, str(tmp_path / "bad.onnx"), "--for", "tensorrt") == 1
    assert capsys.readouterr().out == (
        "node 3 DequantizeLinear -> 'b': integer-bias (rejected): an int32 bias is dequantized; "
        "keep biases float, or export the format onnx-trt\n"
    )


def test_a_good_model_is_exit_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(convolution(), tmp_path / "good.onnx")
    assert run(monkeypatch, str(tmp_path / "good.onnx"), "--for", "tensorrt") == 0
    assert "nothing to change for tensorrt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("model.onnx", "tensorflow", "--for tensorflow: unknown. Did you mean 'tensorrt'?"),
        ("missing.onnx", "tensorrt", "missing.onnx: not found"),
        ("text.onnx", "tensorrt", "text.onnx: not an ONNX model"),
        ("empty.onnx", "onnxruntime", "empty.onnx: not an ONNX model"),
        ("folder", "onnxruntime", "folder: it holds no model.onnx"),
    ],
)
def test_bad_input_is_exit_2_and_one_line(
    name: str,
    target: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    onnx.save(convolution(), tmp_path / "model.onnx")
    (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises((ArtifactError, InputError)):
        lint(tmp_path / name, target)
    assert run(monkeypatch, str(tmp_path / name), "--for", target) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_an_export_directory_means_the_file_for_the_runtime(tmp_path: Path) -> None:
    onnx.save(convolution(zero=np.uint8(0), bias="int32"), tmp_path / "model.onnx")
    assert {each.rule for each in lint(tmp_path, "tensorrt")} == {"unsigned", "integer-bias"}
    onnx.save(convolution(), tmp_path / "model.trt.onnx")
    assert lint(tmp_path, "tensorrt") == []
    assert lint(tmp_path, "onnxruntime") == []
