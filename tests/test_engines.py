from __future__ import annotations

import pytest

from slimline import cuda, engines
from slimline.errors import ExportError

from .lint.models import IMAGE, convolution, model, node

ROWS = {"x": ((1, 8, 8, 8), (8, 8, 8, 8), (32, 8, 8, 8))}


def test_without_tensorrt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert not engines.is_installed()
    with pytest.raises(ExportError, match=r"pip install 'slimline\[tensorrt\]'"):
        engines.Parsed(b"")


@pytest.mark.parametrize(
    ("installed", "gpu", "taken"),
    [
        (["tensorrt", "tensorrt_rtx"], 86, "tensorrt"),
        (["tensorrt", "tensorrt_rtx"], None, "tensorrt_rtx"),
        (["tensorrt_rtx"], 86, "tensorrt_rtx"),
        (["tensorrt"], None, None),
    ],
)
def test_full_tensorrt_needs_a_gpu(
    installed: list[str], gpu: int | None, taken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(cuda, "capability", lambda: gpu)
    monkeypatch.setattr(engines.importlib, "import_module", lambda name: name)
    if taken is None:
        assert not engines.is_installed()
    else:
        assert engines.library() == taken


@pytest.mark.tensorrt
@pytest.mark.parametrize("compute", [[75], [86], [120], [80, 86, 89, 120]], ids=str)
def test_an_engine_is_built_for_capabilities_that_no_gpu_here_has(compute: list[int]) -> None:
    assert len(engines.Parsed(convolution().SerializeToString()).build(ROWS, compute)) > 100_000


@pytest.mark.tensorrt
def test_one_engine_serves_all_capabilities_at_the_size_of_one() -> None:
    sizes = [len(engines.Parsed(convolution().SerializeToString()).build(ROWS, each)) for each in ([86], [80, 86, 89])]
    assert sizes[1] < 1.1 * sizes[0]


@pytest.mark.tensorrt
def test_what_the_parser_says_is_one_line_with_its_node() -> None:
    ((index, operator, message),) = engines.Parsed(convolution(bias="int32").SerializeToString()).errors
    assert (index, operator) == (3, "DequantizeLinear")
    assert message.endswith("input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8.")
    assert "\n" not in message


@pytest.mark.tensorrt
def test_what_is_rejected_is_not_built() -> None:
    parsed = engines.Parsed(model([node("Det", ["x"], ["y"])], {}).SerializeToString())
    with pytest.raises(ExportError, match="TensorRT rejects the model"):
        parsed.build(ROWS, [86])


@pytest.mark.tensorrt
def test_bytes_that_are_no_model_are_rejected() -> None:
    assert engines.Parsed(b"no model").errors


@pytest.mark.tensorrt
def test_a_profile_that_misses_an_input_is_an_error_of_one_line() -> None:
    made = model([node("Add", ["x", "z"], ["y"])], {}, inputs={"x": IMAGE, "z": IMAGE})
    with pytest.raises(ExportError, match=r"can't build an engine: .*z") as caught:
        engines.Parsed(made.SerializeToString()).build(ROWS, [86])
    assert "\n" not in str(caught.value)
