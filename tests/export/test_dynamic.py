"""Dynamic ranges and embeddings: integers in the file, torch's answers from the runtime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from slimline import benchmark, goldens, manifest
from slimline.decisions import Decisions
from slimline.export.onnx import export
from slimline.method import Context, compress
from slimline.methods.linear import Linear
from slimline.predictor import Predictor
from slimline.quantization.quantizers import QuantizedEmbedding, QuantizedLinear
from slimline.runtimes.onnxruntime import OnnxRuntime

VOCABULARY, WIDTH = 300, 16
SIGNATURE = {
    "inputs": [{"name": "ids", "dtype": "int64", "shape": ["batch", "length"]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}],
}


class Words(nn.Module):
    """Embeddings, two products that read one tensor, and a head on rows of two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.a, self.b = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        out: Tensor = self.head((self.a(x) * self.b(x)).mean(1))
        return out


@pytest.fixture
def words() -> Words:
    torch.manual_seed(0)
    return Words().eval()


def ids(rows: int = 9, length: int = 5) -> Tensor:
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def quantized(model: nn.Module, method: Linear, context: Any) -> nn.Module:
    return compress(method, model, lambda: [({"ids": ids()}, torch.zeros(9))], context)[0].eval()


@pytest.fixture
def plain_context() -> Context:
    return Context(None, None, None, None, Decisions(None, {}), where="here")  # type: ignore[arg-type]


def exported(model: nn.Module, folder: Path) -> tuple[Any, OnnxRuntime]:
    export(model, SIGNATURE, folder, {})
    return onnx.load(folder / "model.onnx"), OnnxRuntime(folder, 1)


@pytest.mark.parametrize(("rows", "length"), [(9, 5), (1, 12)], ids=["as calibrated", "another size"])
def test_the_runtime_finds_the_ranges_that_torch_finds(
    words: Words, plain_context: Context, tmp_path: Path, rows: int, length: int
) -> None:
    model = quantized(words, Linear(ranges="dynamic"), plain_context)
    _, runtime = exported(model, tmp_path)
    given = ids(rows, length)
    with torch.inference_mode():
        expected = model(given).numpy()
    np.testing.assert_allclose(runtime.run({"ids": given.numpy()})["y"], expected, atol=1e-5)


def test_factors_behind_each_other_have_a_quantizer_between_them(plain_context: Context, tmp_path: Path) -> None:
    """What the first one's sums were scaled by had the name of the second one's input scale."""
    torch.manual_seed(0)
    factors = nn.Sequential(nn.Linear(WIDTH, 4, bias=False), nn.Linear(4, WIDTH))
    model = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), factors, nn.Linear(WIDTH, 4))
    made = quantized(model, Linear(ranges="dynamic"), plain_context)
    graph, runtime = exported(made, tmp_path)
    found = Counter(node.op_type for node in graph.graph.node)
    assert found["MatMulInteger"] == found["DynamicQuantizeLinear"] == 3
    with torch.inference_mode():
        np.testing.assert_allclose(runtime.run({"ids": ids().numpy()})["y"], made(ids()).numpy(), atol=1e-5)


def test_products_run_in_integers_behind_one_quantizer_a_tensor(
    words: Words, plain_context: Context, tmp_path: Path
) -> None:
    graph, _ = exported(quantized(words, Linear(ranges="dynamic"), plain_context), tmp_path)
    found = Counter(node.op_type for node in graph.graph.node)
    assert found["MatMulInteger"] == 3
    assert found["DynamicQuantizeLinear"] == 2, "the embedding's output once, for both its readers"
    assert not found["MatMul"] + found["Gemm"] + found["QuantizeLinear"] + found["DequantizeLinear"]


def test_other_widths_are_rounded_all_the_same(words: Words, plain_context: Context, tmp_path: Path) -> None:
    model = quantized(words, Linear(ranges="dynamic", weight_bits=4, activation_bits=8), plain_context)
    graph, runtime = exported(model, tmp_path)
    assert "MatMulInteger" not in {node.op_type for node in graph.graph.node}
    with torch.inference_mode():
        expected = model(ids()).numpy()
    np.testing.assert_allclose(runtime.run({"ids": ids().numpy()})["y"], expected, atol=1e-5)


def test_a_range_is_that_of_the_batch(words: Words, plain_context: Context) -> None:
    model = quantized(words, Linear(ranges="dynamic"), plain_context)
    layer = model.get_submodule("head")
    assert isinstance(layer, QuantizedLinear)
    x = torch.tensor([[-1.0, *[0.0] * (WIDTH - 2), 3.0]])
    for factor in (1.0, 1000.0):
        assert (layer.input_quantizer(x * factor) - x * factor).abs().max() <= factor * 4 / 255 / 2 + 1e-6


def test_calibrated_ranges_are_kept_for_those_who_take_no_others(words: Words, plain_context: Context) -> None:
    """TensorRT has no dynamic ranges: ``onnx-trt`` writes the calibrated ones."""
    fixed = quantized(words, Linear(ranges="static"), plain_context).state_dict()
    found = quantized(words, Linear(ranges="dynamic"), plain_context).state_dict()
    scales = [name for name in fixed if name.endswith("input_quantizer.scale")]
    assert len(scales) == 3
    assert all(torch.equal(found[name], fixed[name]) and fixed[name] != 1 for name in scales)


def test_an_embeddings_rows_are_integers_in_the_file(words: Words, plain_context: Context, tmp_path: Path) -> None:
    graph, _ = exported(quantized(words, Linear(), plain_context), tmp_path)
    values = [numpy_helper.to_array(each) for each in graph.graph.initializer]
    tables = [each for each in values if each.shape == (VOCABULARY, WIDTH)]
    assert [each.dtype for each in tables] == [np.int8]
    assert [each.shape for each in values if each.dtype == np.float32 and each.size >= VOCABULARY] == [(VOCABULARY, 1)]


def test_an_embedding_rounds_each_row_on_its_own_grid(words: Words, plain_context: Context) -> None:
    words.words.weight.data *= torch.logspace(-3, 3, VOCABULARY)[:, None]
    model = quantized(words, Linear(), plain_context)
    table = model.get_submodule("words")
    assert isinstance(table, QuantizedEmbedding)
    every = torch.arange(VOCABULARY)
    with torch.inference_mode():
        error = (table(every) - words.words(every)).abs()
        assert (error <= words.words.weight.abs().amax(1, keepdim=True) / 127 / 2 * 1.001).all()
        fitted = table(every)
        assert torch.equal(table.train()(every), fitted), "the same grid while it trains"


def test_an_embedding_learns_through_its_rounding(words: Words, plain_context: Context) -> None:
    model = quantized(words, Linear(), plain_context).train()
    model(ids()).square().sum().backward()
    table = model.get_submodule("words")
    assert table.weight.grad[ids().unique()[1:]].abs().amax(1).gt(0).all()  # type: ignore[index, union-attr]
    with torch.no_grad():
        table.weight *= 2  # type: ignore[operator]
    before = table.train()(ids())
    assert torch.equal(table.eval()(ids()), before), "scales follow the weights"


def test_golden_answers_do_not_depend_on_how_many_threads_share_rows(
    words: Words, plain_context: Context, tmp_path: Path
) -> None:
    with manifest.sealed(tmp_path / "export") as folder:
        export(quantized(words, Linear(ranges="dynamic"), plain_context), SIGNATURE, folder, {})
        manifest.write_json(folder / "signature.json", SIGNATURE)
    one, two = (Predictor(tmp_path / "export", "onnxruntime-rows", threads) for threads in (1, 2))
    rows = {"ids": ids().numpy()}
    assert np.abs(benchmark.outputs(one, rows) - benchmark.outputs(two, rows)).max() > 1e-4  # ranges of a share
    np.testing.assert_array_equal(goldens.outputs(one, rows), goldens.outputs(two, rows))
